package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

const (
	// maxOptions, maxOptionBytes and maxOptionTotal bound what a client may
	// say before it chooses an export: options, and bytes of data of one and of
	// all of them.
	maxOptions     = 256
	maxOptionBytes = 16 << 10
	maxOptionTotal = 1 << 20
)

// negotiation is the first phase of a connection.
type negotiation struct {
	c        *conn
	fixed    bool // the client speaks fixed newstyle
	noZeroes bool
	contexts *export // for which conn.contexts were selected
	options  int     // seen so far
	total    int     // bytes of their data
	out      []byte  // replies being put together
}

// negotiate leads the client to an export (c.exp), or to its goodbye (c.exp is
// nil).
func (c *conn) negotiate() error {
	if err := c.raw.SetDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	if c.finishing() { // its deadline may just have been overwritten
		return errFinish
	}
	c.in.grow(pageSize)
	n := negotiation{c: c}
	if err := n.greet(); err != nil {
		return fmt.Errorf("greet: %w", stalled(err))
	}
	for {
		done, err := n.option()
		if err != nil && c.finishing() {
			return errFinish
		}
		if err != nil {
			return fmt.Errorf("negotiate: %w", stalled(err))
		}
		if done {
			return nil
		}
	}
}

// greet exchanges the handshake flags.
func (n *negotiation) greet() error {
	b := binary.BigEndian.AppendUint64(nil, proto.MagicInit)
	b = binary.BigEndian.AppendUint64(b, proto.MagicOption)
	b = binary.BigEndian.AppendUint16(b, proto.FlagFixedNewstyle|proto.FlagNoZeroes)
	if _, err := n.c.nc.Write(b); err != nil {
		return err
	}
	b, err := n.read(4)
	if err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b)
	if flags&^(proto.FlagFixedNewstyle|proto.FlagNoZeroes) != 0 {
		return fmt.Errorf("%w: unknown client flags %#x", errProtocol, flags)
	}
	n.fixed = flags&proto.FlagFixedNewstyle != 0
	n.noZeroes = flags&proto.FlagNoZeroes != 0
	return nil
}

// read returns the next size bytes, valid until the next read.
func (n *negotiation) read(size int) ([]byte, error) {
	in := &n.c.in
	in.grow(size)
	for in.buffered() < size {
		if err := in.read(n.c.nc); err != nil {
			return nil, err
		}
	}
	return in.take(size), nil
}

// skip reads size bytes and forgets them.
func (n *negotiation) skip(size int) error {
	for size > 0 {
		piece := min(size, pageSize)
		if _, err := n.read(piece); err != nil {
			return err
		}
		size -= piece
	}
	return nil
}

// option serves one option. It reports whether negotiation is over.
func (n *negotiation) option() (done bool, err error) {
	b, err := n.read(proto.OptionSize)
	if err != nil {
		return false, err
	}
	if binary.BigEndian.Uint64(b) != proto.MagicOption {
		return false, fmt.Errorf("option: %w", proto.ErrMagic)
	}
	opt, size := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	n.options++
	if n.options > maxOptions || int64(n.total)+int64(size) > maxOptionTotal {
		return false, fmt.Errorf("%w: more than %d options or %d bytes of them", errProtocol, maxOptions, maxOptionTotal)
	}
	n.total += int(size)
	if size > maxOptionBytes {
		if err := n.skip(int(size)); err != nil {
			return false, err
		}
		return false, n.refuse(opt, proto.RepErrTooBig, "option too long")
	}
	data, err := n.read(int(size))
	if err != nil {
		return false, err
	}
	if !n.fixed && opt != proto.OptExportName {
		return false, fmt.Errorf("%w: option %d from a client without fixed newstyle", errProtocol, opt)
	}
	if n.wantsTLS() && opt != proto.OptStartTLS && opt != proto.OptAbort {
		return false, n.refuse(opt, proto.RepErrTLSReqd, "this server requires TLS")
	}
	switch opt {
	case proto.OptExportName:
		return n.exportName(string(data))
	case proto.OptAbort:
		n.reply(opt, proto.RepAck, nil)
		_ = n.send() // it may be gone already
		return true, nil
	case proto.OptList:
		return false, n.list(data)
	case proto.OptStartTLS:
		return false, n.startTLS(data)
	case proto.OptInfo, proto.OptGo:
		return n.infoOrGo(opt, data)
	case proto.OptStructuredReply:
		return false, n.structuredReply(data)
	case proto.OptExtendedHeaders:
		return false, n.extendedHeaders(data)
	case proto.OptListMetaContext, proto.OptSetMetaContext:
		return false, n.metaContext(opt, data)
	}
	return false, n.refuse(opt, proto.RepErrUnsup, "unknown option")
}

// wantsTLS says whether the client has to turn TLS on before anything else.
func (n *negotiation) wantsTLS() bool {
	return n.c.srv.cfg.RequireTLS && !n.c.isTLS && !n.c.id.unix
}

// reply adds a reply to what send sends.
func (n *negotiation) reply(opt, reply uint32, data []byte) {
	n.out = proto.AppendOptReply(n.out, opt, reply, len(data))
	n.out = append(n.out, data...)
}

func (n *negotiation) send() error {
	_, err := n.c.nc.Write(n.out)
	n.out = n.out[:0]
	return err
}

func (n *negotiation) ack(opt uint32) error {
	n.reply(opt, proto.RepAck, nil)
	return n.send()
}

// refuse answers an option with an error. EXPORT_NAME has no way to be
// answered: the connection ends.
func (n *negotiation) refuse(opt, reply uint32, text string) error {
	if opt == proto.OptExportName {
		return errors.New(text)
	}
	n.reply(opt, reply, []byte(text))
	return n.send()
}

// refuseExport answers an option that names an export which is not to be had.
func (n *negotiation) refuseExport(opt uint32, err error) error {
	switch {
	case errors.Is(err, ErrServerClosed):
		return n.refuse(opt, proto.RepErrShutdown, err.Error())
	case errors.Is(err, ErrNoExport), errors.Is(err, errForbidden):
		return n.refuse(opt, proto.RepErrUnknown, err.Error())
	}
	return err
}

func (n *negotiation) exportName(name string) (done bool, err error) {
	if n.c.headers == extended {
		return false, fmt.Errorf("%w: EXPORT_NAME after EXTENDED_HEADERS", errProtocol)
	}
	e, err := n.c.srv.attach(n.c, name)
	if err != nil {
		return false, err
	}
	n.enter(e)
	n.out = n.appendExport(n.out, e)
	if !n.noZeroes {
		n.out = append(n.out, make([]byte, proto.ReservedZeroes)...)
	}
	return true, n.send()
}

// enter decides what holds during transmission.
func (n *negotiation) enter(e *export) {
	if n.contexts != e {
		n.c.dropContexts()
	}
}

// appendExport appends size and transmission flags.
func (n *negotiation) appendExport(b []byte, e *export) []byte {
	flags := proto.SendHasFlags | proto.SendFlush | proto.SendFUA | proto.SendTrim |
		proto.SendWriteZeroes | proto.SendFastZero | proto.SendCache | proto.SendMultiConn
	if n.c.headers >= structured {
		flags |= proto.SendDF
	}
	if n.c.srv.readsOnly(n.c, e) {
		flags |= proto.SendReadOnly
	}
	b = binary.BigEndian.AppendUint64(b, uint64(e.disk.Size()))
	return binary.BigEndian.AppendUint16(b, flags)
}

func (n *negotiation) list(data []byte) error {
	if len(data) != 0 {
		return n.refuse(proto.OptList, proto.RepErrInvalid, "LIST takes no data")
	}
	for _, name := range n.c.srv.exportNames(n.c) {
		n.reply(proto.OptList, proto.RepServer, proto.AppendString(nil, name))
	}
	return n.ack(proto.OptList)
}

func (n *negotiation) startTLS(data []byte) error {
	c := n.c
	certs := c.srv.certs.Load()
	switch {
	case certs == nil:
		return n.refuse(proto.OptStartTLS, proto.RepErrUnsup, "this server has no certificate")
	case len(data) != 0:
		return n.refuse(proto.OptStartTLS, proto.RepErrInvalid, "STARTTLS takes no data")
	case c.isTLS:
		return n.refuse(proto.OptStartTLS, proto.RepErrInvalid, "TLS is on already")
	case c.in.buffered() != 0: // would be taken for having come over TLS
		return fmt.Errorf("%w: data between STARTTLS and its answer", errProtocol)
	}
	if err := n.ack(proto.OptStartTLS); err != nil {
		return err
	}
	tc := tls.Server(c.raw, certs)
	if err := tc.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.nc, c.isTLS = tc, true
	c.srv.certify(c, tc.ConnectionState())
	c.headers, n.contexts = simple, nil // said by whoever was listening
	c.dropContexts()
	return nil
}

func (n *negotiation) infoOrGo(opt uint32, data []byte) (done bool, err error) {
	name, infos, err := parseGo(data)
	if err != nil {
		return false, n.refuse(opt, proto.RepErrInvalid, err.Error())
	}
	var e *export
	if opt == proto.OptGo {
		e, err = n.c.srv.attach(n.c, name)
	} else {
		e, err = n.c.srv.lookup(n.c, name)
	}
	if err != nil {
		return false, n.refuseExport(opt, err)
	}
	info := binary.BigEndian.AppendUint16(nil, proto.InfoExport)
	n.reply(opt, proto.RepInfo, n.appendExport(info, e))
	if slices.Contains(infos, proto.InfoName) {
		info = binary.BigEndian.AppendUint16(nil, proto.InfoName)
		n.reply(opt, proto.RepInfo, append(info, e.name...))
	}
	if slices.Contains(infos, proto.InfoBlockSize) {
		info = binary.BigEndian.AppendUint16(nil, proto.InfoBlockSize)
		info = binary.BigEndian.AppendUint32(info, 1)
		info = binary.BigEndian.AppendUint32(info, uint32(max(pageSize, e.disk.SectorSize())))
		info = binary.BigEndian.AppendUint32(info, maxPayload)
		n.reply(opt, proto.RepInfo, info)
	}
	if opt == proto.OptGo {
		n.enter(e)
	}
	return opt == proto.OptGo, n.ack(opt)
}

func (n *negotiation) structuredReply(data []byte) error {
	if len(data) != 0 {
		return n.refuse(proto.OptStructuredReply, proto.RepErrInvalid, "STRUCTURED_REPLY takes no data")
	}
	if n.c.headers == extended {
		return n.refuse(proto.OptStructuredReply, proto.RepErrExtHeaderReqd, "extended headers are on, and stay")
	}
	n.c.headers = structured
	return n.ack(proto.OptStructuredReply)
}

func (n *negotiation) extendedHeaders(data []byte) error {
	if len(data) != 0 {
		return n.refuse(proto.OptExtendedHeaders, proto.RepErrInvalid, "EXTENDED_HEADERS takes no data")
	}
	n.c.headers = extended
	return n.ack(proto.OptExtendedHeaders)
}

func (n *negotiation) metaContext(opt uint32, data []byte) error {
	listing := opt == proto.OptListMetaContext
	if !listing { // even if what follows fails
		n.contexts = nil
		n.c.dropContexts()
	}
	if n.c.headers < structured {
		return n.refuse(opt, proto.RepErrInvalid, "metadata contexts need structured replies or extended headers")
	}
	name, queries, err := parseMeta(data)
	if err != nil {
		return n.refuse(opt, proto.RepErrInvalid, err.Error())
	}
	e, err := n.c.srv.lookup(n.c, name)
	if err != nil {
		return n.refuseExport(opt, err)
	}
	if listing {
		return n.listContexts(e, queries)
	}
	return n.selectContexts(e, queries)
}

// listContexts answers with the contexts of e that the queries mean.
func (n *negotiation) listContexts(e *export, queries []string) error {
	if l, ok := e.disk.(layered); ok && slices.Contains(queries, proto.XOwn) {
		for _, id := range l.LiesOn() {
			n.replyContext(proto.OptListMetaContext, 0, fmt.Sprintf("%s%08x", proto.XLiesOn, id))
		}
	}
	for _, name := range listed(contextsOf(e.disk), queries) {
		n.replyContext(proto.OptListMetaContext, 0, name) // an id means nothing here
	}
	return n.ack(proto.OptListMetaContext)
}

// selectContexts selects those of e that the queries name.
func (n *negotiation) selectContexts(e *export, queries []string) error {
	names := named(contextsOf(e.disk), queries)
	if len(names) > maxContexts {
		return n.refuse(proto.OptSetMetaContext, proto.RepErrTooBig, fmt.Sprintf("more than %d metadata contexts", maxContexts))
	}
	n.contexts = e
	for _, name := range names {
		c, err := openContext(e.disk, name)
		if err != nil { // the snapshot is gone meanwhile: the export does not have it
			continue
		}
		c.id = uint32(len(n.c.contexts) + 1)
		n.c.contexts = append(n.c.contexts, c)
		n.replyContext(proto.OptSetMetaContext, c.id, name)
	}
	return n.ack(proto.OptSetMetaContext)
}

func (n *negotiation) replyContext(opt, id uint32, name string) {
	n.reply(opt, proto.RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), name...))
}
