package nbdclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/nowait"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// Dial connects to the export that an NBD URI names (ParseURI); it overrides opt.Export.
// A URI that says TLS turns it on: without opt.TLS the server's certificate must be
// signed by one of the system's authorities. ctx bounds the negotiation.
func Dial(ctx context.Context, uri string, opt Options) (*Conn, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if u.TLS && opt.TLS == nil {
		opt.TLS = new(tls.Config)
	}
	if opt.TLS != nil {
		opt.TLS = u.Config(opt.TLS)
	}
	opt.Export = u.Export
	nc, err := new(net.Dialer).DialContext(ctx, u.Network, u.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to NBD server: %w", err)
	}
	c, err := New(ctx, nc, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	return c, nil
}

// Config is cfg for the server of u, whom its certificate must name.
func (u URI) Config(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	if u.Unverified {
		cfg.InsecureSkipVerify = true
	}
	if cfg.ServerName == "" {
		cfg.ServerName = u.ServerName
	}
	if cfg.ServerName != "" {
		return cfg
	}
	cfg.ServerName = "localhost"
	if host, _, err := net.SplitHostPort(u.Addr); err == nil && u.Network == "tcp" {
		cfg.ServerName = host
	}
	return cfg
}

// New negotiates on a connected socket, which it owns from now on.
func New(ctx context.Context, nc net.Conn, opt Options) (*Conn, error) {
	c := &Conn{nc: nc, raw: nc, from: nc, settle: opt.Settle, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	err := c.negotiate(opt)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("negotiate NBD export %q: %w", opt.Export, err)
	}
	if !c.isTLS {
		c.from = nowait.Reader(nc)
	}
	c.out.init(c)
	go c.receive()
	go c.out.loop(c)
	return c, nil
}

// List returns the names of a server's exports and closes nc.
func List(nc net.Conn) ([]string, error) {
	defer nc.Close()
	c := &Conn{nc: nc, raw: nc, from: nc}
	if err := c.greet(); err != nil {
		return nil, fmt.Errorf("list NBD exports: %w", err)
	}
	var names []string
	err := c.option(proto.OptList, nil, func(kind uint32, b []byte) error {
		if kind != proto.RepServer || len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return errMalformed
		}
		names = append(names, string(b[4:4+binary.BigEndian.Uint32(b)]))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list NBD exports: %w", err)
	}
	return names, c.option(proto.OptAbort, nil, nil)
}

var errMalformed = errors.New("malformed reply to an option")

// OptionError is a server's refusal of an option.
type OptionError struct {
	Reply   uint32 // the protocol's number
	Message string
}

// Error is the server's words with the number.
func (e *OptionError) Error() string {
	return fmt.Sprintf("server refused (%#x): %s", e.Reply, e.Message)
}

func (c *Conn) greet() error {
	c.in = bufio.NewReaderSize(source{c}, 64<<10)
	var b [18]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if binary.BigEndian.Uint64(b[:]) != proto.MagicInit ||
		binary.BigEndian.Uint64(b[8:]) != proto.MagicOption || flags&proto.FlagFixedNewstyle == 0 {
		return errors.New("not an NBD server that speaks fixed newstyle")
	}
	mine := uint32(proto.FlagFixedNewstyle | flags&proto.FlagNoZeroes)
	_, err := c.nc.Write(binary.BigEndian.AppendUint32(nil, mine))
	return err
}

// option sends an option and passes what precedes the final reply to take.
func (c *Conn) option(opt uint32, data []byte, take func(kind uint32, b []byte) error) error {
	if _, err := c.nc.Write(append(proto.AppendOption(nil, opt, len(data)), data...)); err != nil {
		return err
	}
	for {
		var h [proto.OptReplySize]byte
		if _, err := io.ReadFull(c.in, h[:]); err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h[:]) != proto.MagicOptReply || binary.BigEndian.Uint32(h[8:]) != opt || n > 64<<10 {
			return errMalformed
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return err
		}
		switch {
		case kind == proto.RepAck:
			return nil
		case kind&proto.RepErr != 0:
			return &OptionError{Reply: kind, Message: string(b)}
		case take == nil:
			return errMalformed
		}
		if err := take(kind, b); err != nil {
			return err
		}
	}
}

func (c *Conn) negotiate(opt Options) error {
	if err := c.greet(); err != nil {
		return err
	}
	if opt.TLS != nil {
		if err := c.startTLS(opt.TLS); err != nil {
			return err
		}
	}
	if !opt.Simple {
		if err := c.structure(opt); err != nil {
			return err
		}
	}
	if opt.ExportName {
		return c.exportName(opt.Export)
	}
	return c.goExport(opt.Export)
}

func (c *Conn) startTLS(cfg *tls.Config) error {
	if err := c.option(proto.OptStartTLS, nil, nil); err != nil {
		return fmt.Errorf("start TLS: %w", err)
	}
	tc := tls.Client(c.nc, cfg)
	if err := tc.Handshake(); err != nil {
		return fmt.Errorf("start TLS: %w", err)
	}
	c.nc, c.from, c.isTLS = tc, tc, true
	c.in.Reset(source{c}) // drops what was not encrypted
	return nil
}

// structure asks for extended headers, else for structured replies, and for
// base:allocation. A server that knows none of them is used without.
func (c *Conn) structure(opt Options) error {
	var err error
	if !opt.Compact && !opt.ExportName { // which do not go together
		if c.extended, err = c.asks(proto.OptExtendedHeaders); err != nil {
			return err
		}
	}
	c.structured = c.extended
	if !c.structured {
		if c.structured, err = c.asks(proto.OptStructuredReply); !c.structured {
			return err
		}
	}
	if opt.LiesOn {
		if err := c.askLiesOn(opt.Export); err != nil {
			return err
		}
	}
	data := proto.AppendString(nil, opt.Export)
	data = binary.BigEndian.AppendUint32(data, 1)
	data = proto.AppendString(data, proto.BaseAllocation)
	err = c.option(proto.OptSetMetaContext, data, func(kind uint32, b []byte) error {
		if kind != proto.RepMetaContext || len(b) < 4 || string(b[4:]) != proto.BaseAllocation {
			return errMalformed
		}
		c.allocation, c.contextID = true, binary.BigEndian.Uint32(b)
		return nil
	})
	var refused *OptionError
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// maxLayers bounds how many volumes an export is believed to lie on.
const maxLayers = 1024

// askLiesOn asks which volumes the export lies on. Servers that are not ours know of none.
func (c *Conn) askLiesOn(export string) error {
	data := binary.BigEndian.AppendUint32(proto.AppendString(nil, export), 1)
	err := c.option(proto.OptListMetaContext, proto.AppendString(data, proto.XOwn), func(kind uint32, b []byte) error {
		if kind != proto.RepMetaContext || len(b) < 4 || len(c.liesOn) == maxLayers {
			return errMalformed
		}
		if hex, ours := strings.CutPrefix(string(b[4:]), proto.XLiesOn); ours {
			id, err := strconv.ParseUint(hex, 16, 32)
			if err != nil {
				return errMalformed
			}
			c.liesOn = append(c.liesOn, uint32(id))
		}
		return nil
	})
	var refused *OptionError
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// asks asks for what a server may refuse.
func (c *Conn) asks(opt uint32) (granted bool, err error) {
	err = c.option(opt, nil, nil)
	var refused *OptionError
	if errors.As(err, &refused) {
		return false, nil
	}
	return err == nil, err
}

func (c *Conn) exportName(name string) error {
	if _, err := c.nc.Write(append(proto.AppendOption(nil, proto.OptExportName, len(name)), name...)); err != nil {
		return err
	}
	var b [proto.ExportInfoSize]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	return c.takeExport(b[:])
}

// takeExport decodes size and flags.
func (c *Conn) takeExport(b []byte) error {
	size := binary.BigEndian.Uint64(b)
	c.info.Size, c.info.Flags = int64(size), binary.BigEndian.Uint16(b[8:])
	if c.info.Size < 0 {
		return fmt.Errorf("export of %d bytes", size)
	}
	return nil
}

func (c *Conn) goExport(name string) error {
	data := proto.AppendString(nil, name)
	data = binary.BigEndian.AppendUint16(data, 2)
	data = binary.BigEndian.AppendUint16(data, proto.InfoName)
	data = binary.BigEndian.AppendUint16(data, proto.InfoBlockSize)
	return c.option(proto.OptGo, data, func(kind uint32, b []byte) error {
		if kind != proto.RepInfo || len(b) < 2 {
			return errMalformed
		}
		info := binary.BigEndian.Uint16(b)
		b = b[2:]
		switch {
		case info == proto.InfoExport && len(b) == proto.ExportInfoSize:
			return c.takeExport(b)
		case info == proto.InfoName:
			c.info.Name = string(b)
		case info == proto.InfoBlockSize && len(b) == 12:
			c.info.Min = binary.BigEndian.Uint32(b)
			c.info.Preferred = binary.BigEndian.Uint32(b[4:])
			c.info.Max = binary.BigEndian.Uint32(b[8:])
		}
		return nil
	})
}
