package nbd

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// takeRequests takes requests off the socket until the client says goodbye
// (errGoodbye, io.EOF), the server shuts down (errFinish), or something is
// wrong.
func (c *conn) takeRequests() error {
	c.setBusy()
	for {
		if err := c.holdBack(); err != nil {
			return err
		}
		if err := c.awaitHeader(); err != nil {
			return err
		}
		h, err := proto.DecodeRequest(c.in.take(proto.RequestSize))
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		if err := c.dispatch(h); err != nil {
			return err
		}
	}
}

// holdBack waits until the connection may be read: it has too many requests in
// flight, or the disk is full, holds its limit, and has a write of ours.
func (c *conn) holdBack() error {
	if c.outstanding.Load() >= int64(c.srv.cfg.MaxInFlight) {
		if err := c.awaitWhile(c.tooMany); err != nil {
			return err
		}
	}
	if c.unwritten.Load() > 0 && c.disk.HeldFull() != nil {
		return c.awaitWhile(c.held)
	}
	return nil
}

func (c *conn) tooMany() (<-chan struct{}, bool) {
	return nil, c.outstanding.Load() >= int64(c.srv.cfg.MaxInFlight)
}

func (c *conn) held() (<-chan struct{}, bool) {
	event := c.disk.HeldFull()
	return event, event != nil && c.unwritten.Load() > 0
}

// awaitHeader reads until a request header is buffered. Between requests a
// client may take all the time it wants.
func (c *conn) awaitHeader() error {
	for c.in.buffered() < proto.RequestSize {
		err := c.readInput()
		switch {
		case err == nil:
		case c.finishing():
			return errFinish
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := c.readDeadline.off(); err != nil {
				return err
			}
			if c.finishing() { // its deadline may have been wiped out
				return errFinish
			}
		case errors.Is(err, io.EOF) && c.in.buffered() > 0:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// readInput sends the replies there are, and reads once into the buffer.
func (c *conn) readInput() error {
	c.flushReplies()
	err := c.in.read(c.nc)
	c.setBusy()
	return err
}

// readPayload fills p with what follows the header just taken.
func (c *conn) readPayload(p []byte) error {
	n := copy(p, c.in.bytes())
	c.in.take(n)
	// What is short is read together with the requests behind it.
	const short = 32 << 10
	for p = p[n:]; len(p) > 0; p = p[n:] {
		if err := c.startPayloadRead(); err != nil {
			return err
		}
		var err error
		if len(p) <= short {
			err = c.readInput()
			n = copy(p, c.in.bytes())
			c.in.take(n)
		} else {
			c.flushReplies()
			n, err = c.payloadSource(len(p)).Read(p[:min(len(p), maxWrite)])
			c.setBusy()
		}
		if err != nil {
			return c.payloadError(err)
		}
	}
	return nil
}

// payloadSource is where to read n bytes of a payload. Of 64 KiB most is there
// already, and polling made such writes slower.
func (c *conn) payloadSource(n int) io.Reader {
	const long = 128 << 10
	if c.isTLS || n < long {
		return c.nc
	}
	return c.socket
}

// skipPayload reads n bytes and forgets them.
func (c *conn) skipPayload(n int) error {
	for {
		have := min(n, c.in.buffered())
		c.in.take(have)
		if n -= have; n == 0 {
			return nil
		}
		if err := c.startPayloadRead(); err != nil {
			return err
		}
		if err := c.readInput(); err != nil {
			return c.payloadError(err)
		}
	}
}

// startPayloadRead gives the client its time for the next piece.
func (c *conn) startPayloadRead() error {
	if err := c.readDeadline.renew(); err != nil {
		return err
	}
	if c.finishing() { // its deadline may have been wiped out
		return errFinish
	}
	return nil
}

func (c *conn) payloadError(err error) error {
	switch {
	case c.finishing():
		return errFinish
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return stalled(err)
}

// allowedFlags are the flags a command may carry. FUA is allowed everywhere,
// as the protocol wants.
func (c *conn) allowedFlags(cmd uint16) uint16 {
	switch cmd {
	case proto.CmdRead:
		if c.structured {
			return proto.CmdFlagFUA | proto.CmdFlagDF
		}
	case proto.CmdWriteZeroes:
		return proto.CmdFlagFUA | proto.CmdFlagNoHole | proto.CmdFlagFastZero
	case proto.CmdBlockStatus:
		return proto.CmdFlagFUA | proto.CmdFlagReqOne
	}
	return proto.CmdFlagFUA
}

// dispatch starts a request. An error ends the connection.
func (c *conn) dispatch(h proto.Request) error {
	if h.Type == proto.CmdDisc {
		return errGoodbye
	}
	if int(h.Type) < len(c.counters.ops) {
		c.counters.ops[h.Type].Add(1)
	}
	r := c.spareRequest()
	r.cmd, r.cookie = h.Type, h.Cookie
	r.op.Op, r.op.Flags, r.op.Err = 0, 0, nil
	r.op.Offset, r.op.Length, r.op.Data = int64(h.Offset), int64(h.Length), nil
	c.outstanding.Add(1)

	if h.Flags&^c.allowedFlags(h.Type) != 0 {
		return c.refuse(r, proto.EINVAL, "flag not allowed with this command")
	}
	switch h.Type {
	case proto.CmdRead:
		return c.read(r)
	case proto.CmdWrite:
		return c.write(r, h.Flags)
	case proto.CmdFlush:
		if h.Offset != 0 || h.Length != 0 {
			return c.refuse(r, proto.EINVAL, "a flush has no offset and no length")
		}
		return c.submit(r, virstor.OpFlush, 0)
	case proto.CmdTrim:
		return c.trim(r, h.Flags)
	case proto.CmdWriteZeroes:
		return c.writeZeroes(r, h.Flags)
	case proto.CmdCache:
		return c.cache(r)
	case proto.CmdBlockStatus:
		return c.blockStatus(r, h.Flags)
	}
	return c.refuse(r, proto.EINVAL, "unknown command")
}

// refuse answers a request that is not carried out. The payload of a write is
// still to come.
func (c *conn) refuse(r *request, errno uint32, text string) error {
	if r.cmd == proto.CmdWrite {
		if r.op.Length > maxPayload {
			return errTooLong
		}
		if err := c.skipPayload(int(r.op.Length)); err != nil {
			c.drop(r)
			return err
		}
	}
	c.fail(r, errno, text)
	return nil
}

// submit gives a request to the disk.
func (c *conn) submit(r *request, op virstor.Op, flags virstor.Flags) error {
	r.op.Op, r.op.Flags = op, flags
	if r.isWrite() {
		c.unwritten.Add(1)
	}
	c.lone.note(c.outstanding.Load() == 1 && c.in.buffered() == 0)
	if op == virstor.OpFlush || op == virstor.OpWrite && flags&virstor.FUA != 0 {
		c.submitSync(r)
	} else {
		c.disk.Submit(&r.op)
	}
	return nil
}

// outside says whether a request reaches beyond the end of the disk. Offsets of
// 2^63 and more are negative here.
func (c *conn) outside(r *request) bool {
	size := c.disk.Size()
	return r.op.Offset < 0 || r.op.Offset > size || r.op.Length > size-r.op.Offset
}

const pastEnd = "beyond the end of the volume"

// fua translates the flag of a command.
func fua(flags uint16) virstor.Flags {
	if flags&proto.CmdFlagFUA != 0 {
		return virstor.FUA
	}
	return 0
}

func (c *conn) read(r *request) error {
	switch {
	case r.op.Length > maxPayload:
		return c.refuse(r, proto.EINVAL, "read longer than the largest payload")
	case c.outside(r):
		return c.refuse(r, proto.EINVAL, pastEnd)
	case r.op.Length == 0:
		c.succeed(r)
		return nil
	}
	c.counters.bytesRead.Add(uint64(r.op.Length))
	// Whatever was acknowledged before this request is seen here, and what is
	// being written meanwhile may be read as it was. Asking takes 10 ns; 1 MiB
	// reads of a hole became eleven times as fast.
	if c.structured && c.extents.hole(c.disk, r.op.Offset, r.op.Length) {
		c.succeedHole(r)
		return nil
	}
	if err := c.charge(r, &c.reads); err != nil {
		return err
	}
	return c.submit(r, virstor.OpRead, 0)
}

func (c *conn) write(r *request, flags uint16) error {
	switch {
	case r.op.Length > maxPayload:
		return errTooLong
	case c.disk.ReadOnly():
		return c.refuse(r, proto.EPERM, "the volume is read-only")
	case c.outside(r):
		return c.refuse(r, proto.ENOSPC, pastEnd)
	case r.op.Length == 0:
		c.succeed(r)
		return nil
	}
	if err := c.charge(r, &c.writes); err != nil {
		return err
	}
	if err := c.readPayload(r.op.Data); err != nil {
		c.drop(r)
		return err
	}
	c.counters.bytesWritten.Add(uint64(r.op.Length))
	return c.submit(r, virstor.OpWrite, fua(flags))
}

func (c *conn) trim(r *request, flags uint16) error {
	switch {
	case c.disk.ReadOnly():
		return c.refuse(r, proto.EPERM, "the volume is read-only")
	case c.outside(r):
		return c.refuse(r, proto.EINVAL, pastEnd)
	case r.op.Length == 0:
		c.succeed(r)
		return nil
	}
	return c.submit(r, virstor.OpDelete, fua(flags))
}

func (c *conn) writeZeroes(r *request, flags uint16) error {
	switch {
	case c.disk.ReadOnly():
		return c.refuse(r, proto.EPERM, "the volume is read-only")
	case c.outside(r):
		return c.refuse(r, proto.ENOSPC, pastEnd)
	case r.op.Length == 0:
		c.succeed(r)
		return nil
	}
	noHole := flags&proto.CmdFlagNoHole != 0
	if flags&proto.CmdFlagFastZero != 0 &&
		(noHole || !c.extents.zeroesFast(c.disk, r.op.Offset, r.op.Length)) {
		return c.refuse(r, proto.ENOTSUP, "no faster than writing zeros")
	}
	f := fua(flags)
	if noHole {
		f |= virstor.NoHole
	}
	return c.submit(r, virstor.OpWriteZeroes, f)
}

// cache has nothing to do: the operating system caches the components.
func (c *conn) cache(r *request) error {
	if c.outside(r) {
		return c.refuse(r, proto.EINVAL, pastEnd)
	}
	c.succeed(r)
	return nil
}

func (c *conn) blockStatus(r *request, flags uint16) error {
	switch {
	case !c.allocation:
		return c.refuse(r, proto.EINVAL, "no metadata context was negotiated")
	case c.outside(r):
		return c.refuse(r, proto.EINVAL, pastEnd)
	case r.op.Length == 0:
		return c.refuse(r, proto.EINVAL, "block status of nothing")
	}
	most := maxDescriptors
	if flags&proto.CmdFlagReqOne != 0 {
		most = 1
	}
	offset, length := r.op.Offset, r.op.Length
	r.op.Length = int64(most * descriptorSize)
	if err := c.charge(r, &c.reads); err != nil {
		return err
	}
	r.body = c.extents.describe(c.disk, offset, length, most, r.op.Data[:0])
	c.succeedStatus(r)
	return nil
}

// charge gets r.op.Length bytes of memory for r.op.Data, waiting until the
// connection and the server have them.
func (c *conn) charge(r *request, p *purse) error {
	n := bufferSize(int(r.op.Length))
	switch {
	case p.takeReserve(n):
		r.reserve = true
	default:
		if err := c.chargeShared(p, n); err != nil {
			c.outstanding.Add(-1)
			return err
		}
		r.reserve = false
	}
	r.size = n
	r.buf = c.srv.pool.get(int(r.op.Length))
	r.op.Data = r.buf.mem[:r.op.Length]
	return nil
}

func (c *conn) chargeShared(p *purse, n int64) error {
	err := c.awaitWhile(func() (<-chan struct{}, bool) { return nil, p.short(n) })
	if err != nil {
		return err
	}
	p.left.Add(-n)
	if p.shared.take(n) {
		return nil
	}
	p.shared.enqueue(&c.place, n)
	for {
		granted, err := c.await(c.place.ready)
		switch {
		case err != nil:
			p.shared.cancel(&c.place)
			p.left.Add(n)
			return err
		case granted:
			return nil
		}
	}
}
