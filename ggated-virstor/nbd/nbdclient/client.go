// Package nbdclient is an NBD client with many requests in flight on a connection.
// Requests allocate nothing.
package nbdclient

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// Flags of requests.
const (
	FUA      = proto.CmdFlagFUA      // Write, WriteZeroes, Trim
	NoHole   = proto.CmdFlagNoHole   // WriteZeroes
	FastZero = proto.CmdFlagFastZero // WriteZeroes
	DF       = proto.CmdFlagDF       // Read
	ReqOne   = proto.CmdFlagReqOne   // BlockStatus
)

// ErrClosed means that the connection is closed, or broken.
var ErrClosed = errors.New("NBD connection closed")

// Options says how to connect.
type Options struct {
	Export string
	// TLS turns TLS on. ServerName is set from the address when it is empty.
	TLS *tls.Config
	// Simple does without structured replies, and so without BlockStatus and without
	// extended headers.
	Simple bool
	// Compact does without extended headers, and so without lengths of 4 GiB and more.
	Compact bool
	// LiesOn asks which volumes the export lies on.
	LiesOn bool
	// Settle, if not nil, is called by the goroutine that tells each Answerer, before it
	// waits for more answers. It must not wait.
	Settle func()
	// ExportName uses the oldest way to choose an export.
	ExportName bool
}

// Info is what the server says about an export.
type Info struct {
	Size      int64 // bytes
	Flags     uint16
	Name      string // as the server calls it; empty if it did not say
	Min       uint32 // block sizes and largest payload, bytes; 0 if it did not say
	Preferred uint32
	Max       uint32
}

// ReadOnly says that the server refuses writes.
func (i Info) ReadOnly() bool { return i.Flags&proto.SendReadOnly != 0 }

// Flushes says that the server knows Flush.
func (i Info) Flushes() bool { return i.Flags&proto.SendFlush != 0 }

// Trims says that the server knows Trim.
func (i Info) Trims() bool { return i.Flags&proto.SendTrim != 0 }

// WritesZeroes says that the server knows WriteZeroes.
func (i Info) WritesZeroes() bool { return i.Flags&proto.SendWriteZeroes != 0 }

// MultiConn says that a flush on one connection is for what was done on all.
func (i Info) MultiConn() bool { return i.Flags&proto.SendMultiConn != 0 }

// Extent is a run of base:allocation.
type Extent struct {
	Length int64 // bytes
	Hole   bool
	Zero   bool
}

// Conn is a connection to an export. Its methods may be called by many
// goroutines at once; each call waits for its own reply.
type Conn struct {
	info       Info
	nc         net.Conn
	raw        net.Conn // nc, or what is below its TLS
	isTLS      bool
	structured bool
	extended   bool
	allocation bool
	contextID  uint32
	liesOn     []uint32
	in         *bufio.Reader // of source
	from       io.Reader     // what source reads: nc
	settle     func()        // or nil

	out outgoing

	mu     sync.Mutex
	calls  []*call // by the lower half of their cookies
	unused *call   // of calls
	err    error   // why the connection is of no more use
	left   bool    // it ended, not by the server, with requests in flight
	done   chan struct{}

	payload []byte // of a chunk that is no data; the receiver's
}

// call is a request, and used for one after the other.
type call struct {
	cookie   uint64    // rises by 2^32 with each use
	inFlight bool      // guarded by Conn.mu, as next is
	next     *call     // unused
	begun    time.Time // when it was sent; guarded by Conn.mu

	offset  int64    // of the request
	data    []byte   // of a read
	got     [][2]int // ranges of it, in order and apart
	extents []Extent
	status  bool // the server has told of them
	err     error
	done    chan struct{} // capacity 1
	to      Answerer      // is told instead, of one that was started
}

// Answerer is told of the answer to a request that was started.
type Answerer interface {
	// Answered is called once, by any goroutine. It must not wait.
	Answered(err error)
}

// LiesOn are the ids of the volumes that the export lies on, of those servers that tell.
func (c *Conn) LiesOn() []uint32 { return c.liesOn }

// Extended reports whether lengths may be 4 GiB and more.
func (c *Conn) Extended() bool { return c.extended }

// DescribesExtents reports whether the server knows BlockStatus.
func (c *Conn) DescribesExtents() bool { return c.allocation }

// Info is what the server said when the connection was made.
func (c *Conn) Info() Info { return c.info }

// ReadAt reads len(p) bytes at off.
func (c *Conn) ReadAt(p []byte, off int64) (int, error) { return c.Read(p, off, 0) }

// Read reads len(p) bytes at off.
func (c *Conn) Read(p []byte, off int64, flags uint16) (int, error) {
	return count(p, c.do(proto.Request{Type: proto.CmdRead, Flags: flags}, off, int64(len(p)), p))
}

// WriteAt writes p at off.
func (c *Conn) WriteAt(p []byte, off int64) (int, error) { return c.Write(p, off, 0) }

// Write writes p at off.
func (c *Conn) Write(p []byte, off int64, flags uint16) (int, error) {
	return count(p, c.do(proto.Request{Type: proto.CmdWrite, Flags: flags}, off, int64(len(p)), p))
}

// count is how much of p a request transferred: all or nothing.
func count(p []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush waits until everything acknowledged before is on stable storage.
func (c *Conn) Flush() error { return c.do(proto.Request{Type: proto.CmdFlush}, 0, 0, nil) }

// Trim gives n bytes at off up.
func (c *Conn) Trim(off, n int64, flags uint16) error {
	return c.do(proto.Request{Type: proto.CmdTrim, Flags: flags}, off, n, nil)
}

// WriteZeroes makes n bytes at off read as zeros.
func (c *Conn) WriteZeroes(off, n int64, flags uint16) error {
	return c.do(proto.Request{Type: proto.CmdWriteZeroes, Flags: flags}, off, n, nil)
}

// Cache announces that n bytes at off will be used.
func (c *Conn) Cache(off, n int64) error {
	return c.do(proto.Request{Type: proto.CmdCache}, off, n, nil)
}

// BlockStatus asks what is allocated of n bytes at off. The answer may cover
// less.
func (c *Conn) BlockStatus(off, n int64, flags uint16) ([]Extent, error) {
	return c.AppendStatus(nil, off, n, flags)
}

// AppendStatus is BlockStatus, and appends the extents to list.
func (c *Conn) AppendStatus(list []Extent, off, n int64, flags uint16) ([]Extent, error) {
	k, err := c.start(proto.Request{Type: proto.CmdBlockStatus, Flags: flags}, off, n, nil, list)
	if err != nil {
		return list, err
	}
	list, err = k.extents, k.err
	c.release(k)
	return list, err
}

// StartRead begins to read all of p at off, and has to told. It reports false, and nothing
// was done, when as many requests wait to be sent as are sent together, or the connection
// is closed. What was started is sent by Push, or before.
func (c *Conn) StartRead(p []byte, off int64, to Answerer) bool {
	return c.begin(proto.Request{Type: proto.CmdRead}, off, p, to)
}

// StartWrite is StartRead, and writes.
func (c *Conn) StartWrite(p []byte, off int64, to Answerer) bool {
	return c.begin(proto.Request{Type: proto.CmdWrite}, off, p, to)
}

// Push has what was started sent, and does not wait for the server to take it.
func (c *Conn) Push() { c.out.push(c) }

// Close says goodbye and waits for the server to close the connection.
func (c *Conn) Close() error {
	err := c.nc.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if err == nil {
		c.out.send(c, proto.Request{Type: proto.CmdDisc}, nil)
		err = c.out.failed()
	}
	if err == nil && c.nc.SetReadDeadline(time.Now().Add(30*time.Second)) == nil {
		<-c.done
	}
	if err := c.nc.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Abort drops the connection without a goodbye.
func (c *Conn) Abort() error {
	if err := c.raw.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Done is closed when the connection is of no more use.
func (c *Conn) Done() <-chan struct{} { return c.done }

// LeftBehind reports, once the connection is Done, whether the server may still do what
// was sent on it: it had not closed it, and requests had no answer.
func (c *Conn) LeftBehind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

// Oldest is how long the request has been without an answer that was sent first, 0 when
// all have one.
func (c *Conn) Oldest() (wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, k := range c.calls {
		if k.inFlight {
			wait = max(wait, now.Sub(k.begun), 1)
		}
	}
	return wait
}

// do sends a request and waits for its reply. p is the payload of a write, or what a
// read fills.
func (c *Conn) do(h proto.Request, off, n int64, p []byte) error {
	k, err := c.start(h, off, n, p, nil)
	if err != nil {
		return err
	}
	err = k.err
	c.release(k)
	return err
}

// start sends a request and waits for its reply. The call is the caller's until it is
// released.
func (c *Conn) start(h proto.Request, off, n int64, p []byte, list []Extent) (*call, error) {
	k, err := c.prepare(&h, off, n, p, list, nil)
	if err != nil {
		return nil, err
	}
	if h.Type != proto.CmdWrite {
		p = nil
	}
	c.out.send(c, h, p)
	<-k.done
	return k, nil
}

// begin has a request sent that to is told of.
func (c *Conn) begin(h proto.Request, off int64, p []byte, to Answerer) bool {
	k, err := c.prepare(&h, off, int64(len(p)), p, nil, to)
	if err != nil {
		return false
	}
	if h.Type != proto.CmdWrite {
		p = nil
	}
	if c.out.add(c, h, p) {
		return true
	}
	c.mu.Lock()
	mine := k.inFlight && k.cookie == h.Cookie
	if mine {
		k.inFlight = false
	}
	c.mu.Unlock()
	if mine { // else to was told: the connection has ended, or a server answered what it was not asked
		c.release(k)
	}
	return !mine
}

// prepare makes a call, which is in flight from now on.
func (c *Conn) prepare(h *proto.Request, off, n int64, p []byte, list []Extent, to Answerer) (*call, error) {
	if off < 0 || n < 0 || n > 1<<32-1 && !c.extended {
		return nil, fmt.Errorf("NBD request of %d bytes at %d: out of range", n, off)
	}
	k, err := c.take()
	if err != nil {
		return nil, err
	}
	k.offset, k.data, k.got, k.extents, k.status, k.err, k.to = off, nil, k.got[:0], list, false, nil, to
	if h.Type == proto.CmdRead {
		k.data = p
	}
	c.mu.Lock()
	if err = c.err; err == nil {
		k.inFlight, k.begun = true, time.Now()
	}
	c.mu.Unlock()
	if err != nil {
		c.release(k)
		return nil, err
	}
	h.Cookie, h.Offset, h.Length = k.cookie, uint64(off), uint64(n)
	return k, nil
}

// take returns a call that nobody uses.
func (c *Conn) take() (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.unused
	if k != nil {
		c.unused, k.next = k.next, nil
		k.cookie += 1 << 32
		return k, nil
	}
	if len(c.calls) > math.MaxInt32 {
		return nil, errors.New("too many NBD requests in flight")
	}
	k = &call{cookie: uint64(len(c.calls)), done: make(chan struct{}, 1)}
	c.calls = append(c.calls, k)
	return k, nil
}

func (c *Conn) release(k *call) {
	k.data, k.extents, k.to = nil, nil, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	k.next, c.unused = c.unused, k
}

// appendRequest appends the header of a request to b.
func (c *Conn) appendRequest(b []byte, h proto.Request) []byte {
	if !c.extended {
		return h.Append(b)
	}
	if h.Type == proto.CmdWrite {
		h.Flags |= proto.CmdFlagPayloadLen
	}
	return h.AppendExt(b)
}

// source is what a connection reads.
type source struct{ c *Conn }

func (s source) Read(p []byte) (int, error) {
	if s.c.settle != nil {
		s.c.settle()
	}
	return s.c.from.Read(p)
}

// receive takes replies until the connection ends.
func (c *Conn) receive() {
	var err error
	for err == nil {
		err = c.reply()
	}
	byServer := c.closedByServer(err)
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = ErrClosed
	} else {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.raw.Close()
	c.out.end()
	for _, k := range c.fail(err, byServer) {
		c.answer(k)
	}
	if c.settle != nil {
		c.settle()
	}
	close(c.done)
}

// fail ends all calls with err, and returns those that were in flight.
func (c *Conn) fail(err error, byServer bool) (ended []*call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, k := range c.calls {
		if k.inFlight {
			c.left = c.left || !byServer
			k.inFlight, k.err = false, err
			ended = append(ended, k)
		}
	}
	return ended
}

// closedByServer reports whether err of reading means that the server has closed the
// connection. A reset may be of somebody on the way, but for one of a Unix socket.
func (c *Conn) closedByServer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) && c.raw.RemoteAddr().Network() == "unix"
}

// reply takes one reply, or one chunk of one. An error ends the connection.
func (c *Conn) reply() error {
	if c.extended {
		return c.extendedReply()
	}
	b, err := c.in.Peek(proto.SimpleSize)
	if err != nil {
		return err
	}
	switch binary.BigEndian.Uint32(b) {
	case proto.MagicSimple:
		errno, cookie := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
		_, _ = c.in.Discard(proto.SimpleSize) // they were peeked at
		return c.simple(errno, cookie)
	case proto.MagicStructured:
		b, err := c.in.Peek(proto.ChunkSize)
		if err != nil {
			return err
		}
		h := proto.DecodeChunk(b)
		_, _ = c.in.Discard(proto.ChunkSize)
		if !c.structured {
			return errors.New("structured reply that was not negotiated")
		}
		return c.chunk(h)
	}
	return fmt.Errorf("reply: %w", proto.ErrMagic)
}

func (c *Conn) extendedReply() error {
	b, err := c.in.Peek(proto.ExtChunkSize)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b) != proto.MagicExtReply {
		return fmt.Errorf("reply: %w", proto.ErrMagic)
	}
	h := proto.DecodeExtChunk(b)
	if _, err := c.in.Discard(proto.ExtChunkSize); err != nil {
		return err
	}
	return c.chunk(h)
}

// lookup finds the request a reply is for.
func (c *Conn) lookup(cookie uint64) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := cookie & math.MaxUint32; i < uint64(len(c.calls)) {
		if k := c.calls[i]; k.inFlight && k.cookie == cookie {
			return k, nil
		}
	}
	return nil, fmt.Errorf("reply to a request that is not in flight (cookie %#x)", cookie)
}

// finish ends a request.
func (c *Conn) finish(k *call) {
	c.mu.Lock()
	k.inFlight = false
	c.mu.Unlock()
	c.answer(k)
}

// answer tells whoever waits for k, which is not in flight any more.
func (c *Conn) answer(k *call) {
	if k.to == nil {
		k.done <- struct{}{}
		return
	}
	to, err := k.to, k.err
	c.release(k)
	to.Answered(err)
}

func (c *Conn) simple(errno uint32, cookie uint64) error {
	k, err := c.lookup(cookie)
	if err != nil {
		return err
	}
	switch {
	case errno != 0:
		k.err = &Error{Errno: errno}
	case len(k.data) > 0 && c.structured:
		return errors.New("simple reply to a read after structured replies were negotiated")
	case len(k.data) > 0:
		if _, err := io.ReadFull(c.in, k.data); err != nil {
			return err
		}
	}
	c.finish(k)
	return nil
}

// maxChunk bounds what is read for a chunk that is not data, bytes.
const maxChunk = 16 << 20

func (c *Conn) chunk(h proto.Chunk) error {
	k, err := c.lookup(h.Cookie)
	if err != nil {
		return err
	}
	switch {
	case c.extended && h.Offset != uint64(k.offset):
		err = fmt.Errorf("reply for offset %d to a request for %d", h.Offset, k.offset)
	case h.Type == proto.ReplyOffsetData:
		err = c.offsetData(k, h.Length)
	case h.Length > maxChunk:
		err = fmt.Errorf("chunk of type %d has %d bytes", h.Type, h.Length)
	default:
		c.payload = slices.Grow(c.payload[:0], int(h.Length))[:h.Length]
		if _, err = io.ReadFull(c.in, c.payload); err == nil {
			err = c.smallChunk(k, h.Type, c.payload)
		}
	}
	if err != nil {
		return err
	}
	if h.Flags&proto.ReplyFlagDone != 0 {
		if missing := k.missing(); k.err == nil && missing > 0 {
			return fmt.Errorf("of a read of %d bytes %d were not answered", len(k.data), missing)
		}
		c.finish(k)
	}
	return nil
}

// maxParts bounds the ranges that a read is answered in.
const maxParts = 4096

// window is the part of a read's buffer that a chunk is about, which no other is: what none
// is about would be what the buffer held before.
func (k *call) window(offset, n uint64) ([]byte, error) {
	from := offset - uint64(k.offset)
	if offset < uint64(k.offset) || from > uint64(len(k.data)) || n > uint64(len(k.data))-from || n == 0 {
		return nil, errors.New("chunk outside of the read it answers")
	}
	start, end := int(from), int(from+n)
	i := len(k.got) // of the first that is behind; nearly always none is
	for i > 0 && k.got[i-1][0] >= end {
		i--
	}
	switch {
	case i > 0 && k.got[i-1][1] > start:
		return nil, errors.New("two chunks about the same part of a read")
	case i > 0 && k.got[i-1][1] == start:
		k.got[i-1][1] = end
	case len(k.got) == maxParts:
		return nil, errors.New("a read is answered in too many parts")
	default:
		k.got = slices.Insert(k.got, i, [2]int{start, end})
	}
	return k.data[start:end], nil
}

// missing is how much of a read was not answered, bytes.
func (k *call) missing() int {
	n := len(k.data)
	for _, part := range k.got {
		n -= part[1] - part[0]
	}
	return n
}

func (c *Conn) offsetData(k *call, length uint64) error {
	if length < 9 {
		return errors.New("chunk of data without data")
	}
	b, err := c.in.Peek(8)
	if err != nil {
		return err
	}
	p, err := k.window(binary.BigEndian.Uint64(b), length-8)
	if err != nil {
		return err
	}
	if _, err := c.in.Discard(8); err != nil {
		return err
	}
	_, err = io.ReadFull(c.in, p)
	return err
}

func (c *Conn) smallChunk(k *call, kind uint16, b []byte) error {
	switch {
	case kind == proto.ReplyNone:
		return nil
	case kind == proto.ReplyOffsetHole && len(b) == 12:
		p, err := k.window(binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:])))
		clear(p)
		return err
	case kind == proto.ReplyBlockStatus && !c.extended && len(b) >= 12 && len(b)%8 == 4:
		return c.blockStatus(k, b, b[4:], 8)
	case kind == proto.ReplyBlockStatusExt && c.extended && len(b) >= 24 && uint64(len(b)) == 8+16*uint64(binary.BigEndian.Uint32(b[4:])):
		return c.blockStatus(k, b, b[8:], 16)
	case kind&proto.ReplyErr != 0 && len(b) >= 6:
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n > len(b)-6 {
			return errors.New("error message longer than its chunk")
		}
		k.err = &Error{Errno: binary.BigEndian.Uint32(b), Message: string(b[6 : 6+n])}
		return nil
	}
	return fmt.Errorf("chunk of type %d with %d bytes", kind, len(b))
}

// blockStatus takes descriptors of size bytes, each a length and a state, of the context
// that b begins with.
func (c *Conn) blockStatus(k *call, b, list []byte, size int) error {
	if !c.allocation || binary.BigEndian.Uint32(b) != c.contextID {
		return errors.New("block status of a context that was not selected")
	}
	if k.status {
		return errors.New("a context has two chunks of block status")
	}
	k.status = true
	for ; len(list) > 0; list = list[size:] {
		length, state := uint64(binary.BigEndian.Uint32(list)), uint64(binary.BigEndian.Uint32(list[4:]))
		if size == 16 {
			length, state = binary.BigEndian.Uint64(list), binary.BigEndian.Uint64(list[8:])
		}
		if length == 0 || length > math.MaxInt64 {
			return fmt.Errorf("extent of %d bytes", length)
		}
		k.extents = append(k.extents, Extent{
			Length: int64(length),
			Hole:   state&uint64(proto.StateHole) != 0,
			Zero:   state&uint64(proto.StateZero) != 0,
		})
	}
	return nil
}
