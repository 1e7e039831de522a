package nbdclient

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/gather"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

const (
	// together is how many requests are sent together, at most.
	together = 64
	// enough is how much data of them is sent without waiting for more, bytes.
	enough = 64 << 10
	// stageSize is how much goes into one record of TLS, bytes.
	stageSize = 16 << 10
	// lastWords is how long a server may answer what it was sent when it takes no more.
	lastWords = time.Second
)

// outgoing are the requests of a connection that wait to be sent. Whoever sets sending
// sends, and goes on until there are none; what the server does not take at once is left
// to a goroutine of the connection by those who must not wait.
type outgoing struct {
	mu      sync.Mutex
	room    sync.Cond // there is room, or there never will be; or nobody sends any more
	waiting *parcel
	sending bool
	cut     error // a request was not sent whole: no other can be

	// Of whoever is sending.
	parcel *parcel
	rest   [][]byte // what is still to be sent of it
	stage  gather.Stage
	socket syscall.RawConn
	vec    gather.Message
	some   func(fd uintptr) bool // sends what the socket takes
	err    error                 // of some

	handed chan struct{} // capacity 1: the goroutine goes on with rest
}

// parcel are requests that are sent together. Headers that follow each other are one part.
type parcel struct {
	n     int
	bytes int    // of data
	heads []byte // never grows beyond its capacity, which parts are of
	parts [][]byte
	open  bool // the last part is a header
}

func newParcel() *parcel {
	return &parcel{heads: make([]byte, 0, together*proto.ExtRequestSize), parts: make([][]byte, 0, 2*together)}
}

func (p *parcel) full() bool { return p.n == together || p.bytes >= enough }

// add appends a request, whose header put appends.
func (p *parcel) add(put func([]byte, proto.Request) []byte, h proto.Request, data []byte) {
	from := len(p.heads)
	p.heads = put(p.heads, h)
	if p.open {
		last := &p.parts[len(p.parts)-1]
		*last = (*last)[:len(*last)+len(p.heads)-from]
	} else {
		p.parts = append(p.parts, p.heads[from:])
	}
	if p.open = len(data) == 0; !p.open {
		p.parts = append(p.parts, data)
	}
	p.n++
	p.bytes += len(data)
}

func (p *parcel) clear() {
	clear(p.parts)
	p.n, p.bytes, p.heads, p.parts, p.open = 0, 0, p.heads[:0], p.parts[:0], false
}

// init makes o ready for c, which has negotiated.
func (o *outgoing) init(c *Conn) {
	o.room.L = &o.mu
	o.waiting, o.parcel = newParcel(), newParcel()
	o.handed = make(chan struct{}, 1)
	if sc, ok := c.raw.(syscall.Conn); ok && gather.Can && !c.isTLS {
		if rc, err := sc.SyscallConn(); err == nil {
			o.socket = rc
		}
	}
	o.some = o.sendSome
}

// loop goes on with what is left to it until c has ended.
func (o *outgoing) loop(c *Conn) {
	for {
		select {
		case <-o.handed:
			o.mu.Lock()
			o.sendLocked(c, true, false)
			o.mu.Unlock()
		case <-c.done:
			return
		}
	}
}

// send sends a request, and waits as long as that takes.
func (o *outgoing) send(c *Conn, h proto.Request, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.waiting.full() && o.cut == nil {
		if o.sending {
			o.room.Wait()
			continue
		}
		o.sending = true
		o.sendLocked(c, true, true)
	}
	if o.cut != nil { // c ends, and tells everybody
		return
	}
	o.waiting.add(c.appendRequest, h, data)
	if !o.sending {
		o.sending = true
		o.sendLocked(c, true, true)
	}
}

// add has a request wait to be sent. It reports false when there is no room.
func (o *outgoing) add(c *Conn, h proto.Request, data []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting.full() {
		o.pushLocked(c)
	}
	if o.waiting.full() && o.cut == nil {
		return false
	}
	if o.cut == nil {
		o.waiting.add(c.appendRequest, h, data)
	}
	return true
}

// push has what waits sent.
func (o *outgoing) push(c *Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pushLocked(c)
}

// pushLocked is push. o.mu is held, but while it sends.
func (o *outgoing) pushLocked(c *Conn) {
	if !o.sending && o.waiting.n > 0 {
		o.sending = true
		o.sendLocked(c, false, false)
	}
}

// end has nothing sent any more on a connection that is closed, and waits until nobody reads
// what callers wanted sent: it is theirs again when they are answered.
func (o *outgoing) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut == nil {
		o.cut = ErrClosed
	}
	o.room.Broadcast()
	for o.sending {
		o.room.Wait()
	}
}

// failed is why no request can be sent any more.
func (o *outgoing) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cut
}

// sendLocked sends until nothing waits. Unless it is to wait for the server it leaves what
// that does not take at once to the goroutine of c, and who has a request of his own to wait
// for, what comes behind that. The caller has set o.sending, and holds o.mu, which is released
// while sending.
func (o *outgoing) sendLocked(c *Conn, wait, own bool) {
	for o.cut == nil {
		if len(o.rest) == 0 {
			o.parcel.clear()
			if o.waiting.n == 0 {
				break
			}
			o.parcel, o.waiting = o.waiting, o.parcel
			o.rest = o.parcel.parts
			o.room.Broadcast()
		}
		o.mu.Unlock()
		left, err := o.write(c, wait)
		o.mu.Lock()
		if err != nil {
			// The stream is out of step. The receiver tells everybody, when it has what the
			// server still says, if that is still there.
			o.cut = err
			_ = c.raw.SetReadDeadline(time.Now().Add(lastWords))
			o.room.Broadcast()
			break
		}
		if left || own && o.waiting.n > 0 {
			o.handed <- struct{}{}
			return
		}
	}
	o.sending = false
	if o.cut != nil {
		o.room.Broadcast()
	}
}

// write sends o.rest, or what the server takes at once of it, and reports whether any is
// left.
func (o *outgoing) write(c *Conn, wait bool) (left bool, err error) {
	switch {
	case !wait && o.socket == nil:
		return true, nil
	case !wait:
		o.vec.Set(o.rest)
		err = o.socket.Write(o.some)
		o.vec.Reset()
		if err == nil {
			err = o.err
		}
	case c.isTLS:
		err, o.rest = o.stage.Write(c.nc, o.rest, stageSize), nil
	case len(o.rest) == 1:
		_, err = c.nc.Write(o.rest[0])
		o.rest = nil
	default:
		vec := (*net.Buffers)(&o.rest)
		_, err = vec.WriteTo(c.nc)
		o.rest = nil
	}
	return len(o.rest) > 0, err
}

// sendSome never reports false, which would leave the waiting to the runtime.
func (o *outgoing) sendSome(fd uintptr) bool {
	for o.err = nil; o.vec.Left(); {
		n, err := o.vec.Send(fd)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return true
		case err != nil:
			o.err = err
			return true
		}
		for n > 0 {
			k := min(n, len(o.rest[0]))
			if o.rest[0] = o.rest[0][k:]; len(o.rest[0]) == 0 {
				o.rest = o.rest[1:]
			}
			n -= k
		}
	}
	return true
}
