package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/gather"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/nowait"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// Why a connection ends.
var (
	errKicked   = errors.New("disconnected by the administrator")
	errIdle     = errors.New("asked for nothing for too long")
	errCrowded  = errors.New("had to make room while negotiating")
	errGoodbye  = errors.New("client disconnected")
	errFinish   = errors.New("the service ends")
	errStalled  = errors.New("client stalled")
	errTooLong  = errors.New("write longer than the largest payload")
	errStopped  = errors.New("connection closed")
	errProtocol = errors.New("protocol violation")
)

// conn is the connection of a client.
//
//	negotiating -> transmitting -> draining -> closed
//
// with a short way to closed from everywhere. Its reader goroutine (serve) goes
// through these; close may come from any goroutine.
type conn struct {
	srv    *Server
	number uint64 // in order of arrival; guarded by Server.mu
	raw    net.Conn
	nc     net.Conn // raw, or TLS on top of it; fixed before transmission
	isTLS  bool
	id     identity
	since  time.Time // when it was accepted
	lull   lull      // guarded by Server.mu
	in     input

	// Fixed before transmission.
	exp      *export // written under Server.mu
	disk     Disk
	readOnly bool // for this client, whatever the disk is; written under Server.mu
	headers  headers
	contexts []metaContext // that were selected; they are closed by the reader goroutine

	quit chan struct{} // closed by finish: take no more requests
	stop chan struct{} // closed by close
	done chan struct{} // closed when the reader ended
	once sync.Once     // of close
	// leaving: the server hands its clients over (see handover.go). It is set before finish.
	leaving atomic.Bool
	asked   bool      // for something, of a server before; fixed before it is served
	end     sync.Once // of finish

	counters counters

	reader
	writer

	// Guarded by the order of the export.
	spans int  // changes that wait or are at work
	gone  bool // the client has said goodbye, or the connection is closed

	outstanding atomic.Int64 // requests taken and not answered
	unwritten   atomic.Int64 // of these, writes that the disk has not completed
	heldWrites  atomic.Int64 // of these, those that it holds for space

	kick   chan struct{} // wakes the writer goroutine
	wake   chan struct{} // wakes the reader, see sender.waiting
	sender sender
}

// headers is which messages a connection speaks in.
type headers uint8

const (
	simple     headers = iota
	structured         // replies in chunks, where there is data
	extended           // longer headers both ways, and all replies in chunks
)

// size is that of a request's header, bytes.
func (h headers) size() int {
	if h == extended {
		return proto.ExtRequestSize
	}
	return proto.RequestSize
}

// decode reads the header of a request, size bytes.
func (h headers) decode(b []byte) (proto.Request, error) {
	if h == extended {
		return proto.DecodeExtRequest(b)
	}
	return proto.DecodeRequest(b)
}

// payload is how much follows the header of r, bytes. QEMU (seen with 10.0) leaves the
// flag of a write out which the protocol wants: a write has its payload all the same.
func (h headers) payload(r proto.Request) uint64 {
	if r.Type == proto.CmdWrite || h == extended && r.Flags&proto.CmdFlagPayloadLen != 0 {
		return r.Length
	}
	return 0
}

// descriptor is the size of a descriptor of block status, bytes.
func (h headers) descriptor() int {
	if h == extended {
		return 16
	}
	return 8
}

// statusHead is the size of what comes before the descriptors of a chunk of block status,
// bytes.
func (h headers) statusHead() int {
	if h == extended {
		return proto.ExtChunkSize + 4 + 4
	}
	return proto.ChunkSize + 4
}

// append appends the header of a chunk of a reply to b.
func (h headers) append(b []byte, c proto.Chunk) []byte {
	if h == extended {
		return c.AppendExt(b)
	}
	return c.Append(b)
}

// reader is what of a connection belongs to its reader goroutine alone.
type reader struct {
	reads, writes quota
	queued        waiter      // for the shared part of a quota
	wakeup        *time.Timer // while it waits for something other than input
	readDeadline  deadline
	unused        *request // requests nobody uses
	extents       extentWalk
	qd1           qd1
	amid          bool      // in a request that was begun and is not submitted
	gathers       bool      // the disk may keep what was submitted
	prolonged     bool      // a read went on after finish
	source        io.Reader // of input
	socket        *socket   // reads from raw, and for the writer writes to it
}

// writer is what of a connection belongs to whoever writes at the moment (see
// sender.writing).
type writer struct {
	writeDeadline deadline
	out           outgoing
	buffers       net.Buffers
	piece         [2][]byte // what Take sends
	stage         gather.Stage
}

// awaitTick is how often a reader that waits for something other than its peer
// looks whether the peer is still there.
const awaitTick = time.Second

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		srv:  s,
		raw:  nc,
		nc:   nc,
		quit: make(chan struct{}),
		stop: make(chan struct{}),
		done: make(chan struct{}),
		kick: make(chan struct{}, 1),
		wake: make(chan struct{}, 1),
	}
	c.id, c.since = identify(nc), time.Now()
	c.queued.ready = make(chan struct{}, 1)
	c.readDeadline = deadline{set: nc.SetReadDeadline, span: s.cfg.StallTimeout}
	c.writeDeadline = deadline{set: nc.SetWriteDeadline, span: s.cfg.StallTimeout}
	return c
}

// serve is the reader goroutine.
func (c *conn) serve() {
	defer c.srv.goroutines.Done()
	defer close(c.done)
	defer c.srv.keepCounts(c)
	defer c.dropContexts()

	var err error
	if c.exp == nil { // else it was adopted
		err = c.negotiate()
	}
	if err == nil && c.exp != nil {
		err = c.transmission()
		c.close(err)
		c.exp.order.freed(c)
		c.exp.order.awaitSubmitted()
	}
	c.close(err)
}

// transmission serves requests until there are no more.
func (c *conn) transmission() error {
	c.disk = c.exp.disk
	c.extents.init(c.headers)
	c.socket = newSocket(c.raw, &c.srv.pollers)
	if c.source = c.nc; !c.isTLS {
		c.source = nowait.Reader(c.raw)
	}
	c.wakeup = time.NewTimer(awaitTick)
	defer c.wakeup.Stop()
	c.in.grow(inputSize)
	c.widen()
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if c.finishing() || c.leaving.Load() { // its deadline may just have been wiped out
		c.handOver()
		return errFinish
	}
	var writer sync.WaitGroup
	writer.Go(c.writeLoop)
	defer writer.Wait()

	err := c.awaitWhile(c.exp.order.full)
	if err == nil {
		err = c.takeRequests()
		c.push()
	}
	switch {
	case errors.Is(err, errGoodbye) || errors.Is(err, io.EOF):
		c.exp.order.end(c, true)
		c.drain(err)
	case errors.Is(err, errFinish):
		c.drain(err)
		c.handOver()
	}
	c.close(err)
	return err
}

// socketBuffer is what a Unix socket is asked to take of replies before it
// blocks, bytes. Systems grant less (Linux 416 KiB), but more than they give
// unasked: reads of 1 MiB became a fifth faster with it. TCP finds its own size.
const socketBuffer = 1 << 20

func (c *conn) widen() {
	if u, ok := c.raw.(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(socketBuffer) // does without if it must
	}
}

// drain waits until the requests in flight are answered. A client that has said
// goodbye gets DrainTimeout. Once the connection is to finish, writes that the
// disk holds for space are not waited for: that space comes is in nobody's hand.
func (c *conn) drain(why error) {
	var timeout <-chan time.Time
	if !errors.Is(why, errFinish) {
		c.srv.leave(c)
		t := time.NewTimer(c.srv.cfg.DrainTimeout)
		defer t.Stop()
		timeout = t.C
	}
	c.setWaiting(true)
	defer c.setWaiting(false)
	c.flushReplies()
	quit := c.quit
	for c.outstanding.Load() > 0 {
		if c.finishing() && c.outstanding.Load() == c.heldWrites.Load() {
			return
		}
		select {
		case <-c.wake:
		case <-quit:
			quit = nil
		case <-timeout:
			return
		case <-c.stop:
			return
		}
	}
}

// finish asks the reader to take no more requests and to end when those in
// flight are answered.
func (c *conn) finish() {
	c.end.Do(func() {
		close(c.quit)
		_ = c.raw.SetReadDeadline(longAgo) // of a closed one nobody reads
	})
}

func (c *conn) finishing() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// close ends the connection now. Requests that the disk has at work keep their
// memory until it completes them; the others end.
func (c *conn) close(why error) {
	c.once.Do(func() {
		exp := c.srv.forget(c)
		c.discardReplies()
		close(c.stop)
		if exp != nil {
			exp.order.end(c, false)
		}
		if graceful(why) && c.isTLS { // only the connection itself ends gracefully
			c.nc.Close() // says goodbye, within 5 s
		}
		c.raw.Close()
		c.logEnd(why)
	})
}

func graceful(why error) bool {
	return why == nil || errors.Is(why, errGoodbye) || errors.Is(why, errFinish)
}

// logEnd tells the administrator of what is not everyday. Of clients that do not
// keep to the protocol, or never get as far as an export, there is one line a
// minute.
func (c *conn) logEnd(why error) {
	log := c.srv.cfg.Log
	attrs := []any{"client", c.id.String()}
	if c.exp != nil {
		attrs = append(attrs, "export", c.exp.name)
	}
	switch {
	case why == nil || errors.Is(why, errGoodbye) || errors.Is(why, io.EOF) || errors.Is(why, errFinish):
		log.Debug("NBD client left", attrs...)
	case errors.Is(why, errKicked):
		log.Warn("NBD client disconnected", append(attrs, "reason", why.Error())...)
	case c.exp == nil || isRude(why):
		n, say := c.srv.rude.note(time.Now())
		if say {
			log.Warn("NBD client disconnected", append(attrs, "reason", why.Error(), "times", n)...)
		} else {
			log.Debug("NBD client disconnected", append(attrs, "reason", why.Error())...)
		}
	default:
		log.Info("NBD connection ended", append(attrs, "reason", why.Error())...)
	}
}

// isRude says whether the client is to blame.
func isRude(why error) bool {
	return slices.ContainsFunc([]error{errStalled, errIdle, errTooLong, errProtocol, proto.ErrMagic},
		func(e error) bool { return errors.Is(why, e) })
}

// await blocks the reader until event fires (true) or c.wake does (false). It
// fails with errFinish or errStopped when there is no more point, with io.EOF
// when the peer is gone. Replies queued so far are sent first.
func (c *conn) await(event <-chan struct{}) (bool, error) {
	c.flushReplies()
	defer c.setBusy()
	c.wakeup.Reset(awaitTick)
	quit := c.quit
	for {
		select {
		case <-event:
			return true, nil
		case <-c.wake:
			return false, nil
		case <-quit:
			if !c.amid || c.interrupted() {
				return false, errFinish
			}
			quit = nil
		case <-c.stop:
			return false, errStopped
		case <-c.wakeup.C:
			if peerGone(c.raw) {
				return false, io.EOF
			}
			c.wakeup.Reset(awaitTick)
		}
	}
}

// awaitWhile blocks the reader while blocked() says so; it is asked again when
// a request was completed or answered, and when the channel it returns fires.
func (c *conn) awaitWhile(blocked func() (event <-chan struct{}, yes bool)) error {
	if _, yes := blocked(); !yes {
		return nil
	}
	c.setWaiting(true)
	defer c.setWaiting(false)
	for {
		event, yes := blocked()
		if !yes {
			return nil
		}
		if _, err := c.await(event); err != nil {
			return err
		}
	}
}

// deadline keeps a deadline of a socket ahead of the clock without setting it
// for each operation: an operation gets between 3/4 and all of span.
type deadline struct {
	set  func(time.Time) error
	span time.Duration
	at   time.Time // when it was last set; zero when it is off
}

// renew makes sure that the next operation has its time.
func (d *deadline) renew() error {
	now := time.Now()
	if !d.at.IsZero() && now.Sub(d.at) < d.span/4 {
		return nil
	}
	d.at = now
	return d.set(now.Add(d.span))
}

// off turns the deadline off.
func (d *deadline) off() error {
	d.at = time.Time{}
	return d.set(time.Time{})
}

// stalled gives a timeout of the socket its name.
func stalled(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled
	}
	return err
}
