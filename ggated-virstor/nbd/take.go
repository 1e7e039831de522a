package nbd

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// A large read need not be copied to be sent: the disk lends its memory, and the socket
// copies out of that, once. Nothing of it is left anywhere when Take returns. (With
// sendfile(2) the pages themselves would be in the socket, and whoever holds them last,
// be it a client that passes them on, would see what is written to the chunk after it was
// freed: SIOCOUTQ does not tell of those.)

const (
	// leastTaken and mostTaken bound what is taken from the disk, bytes. What is small is
	// in the processor's cache when it is copied again; for one write there is a deadline.
	leastTaken = 256 << 10
	mostTaken  = maxWrite
)

// takeWait bounds how long Take waits for the client: the chunk cannot be freed or moved
// meanwhile. What is not taken by then is copied, and so is all that is read until the
// client has taken what is queued. It bears a client that does not get a processor at once.
var takeWait = roomWait{each: 20 * time.Millisecond, turns: 8}

// mayTake says whether r, a read, may take its data.
func (c *conn) mayTake(r *request) bool {
	return c.canSendNow() && r.op.Length >= leastTaken && r.op.Length <= mostTaken
}

// Take sends the reply to a read whose data the disk has at p, as far as the client takes
// it soon. It implements virstor.Taker.
//
// Once something was sent, r has the socket (sender.writing) until it completes: then the
// writer goroutine goes on with what is left, which the disk has copied by then.
func (r *request) Take(_ *virstor.Request, p []byte) int {
	c := r.conn
	if !c.beginTake() {
		return 0
	}
	r.body = r.op.Data // for its length
	r.encodeSuccess()
	taken := 0
	if r.sent = 0; c.writeDeadline.renew() == nil {
		taken = r.sendLent(p)
	}
	c.piece = [2][]byte{}
	if r.sent == 0 || r.sent == r.headLen+len(p) {
		c.leaveSocket()
	}
	return taken
}

// sendLent is Take, and notes in r.sent what was sent. A sector of which the client has a part
// is copied to where the rest is to come, and is taken too: somebody may write to it before
// the client takes more, and it would have the beginning of the old one and the end of the new.
func (r *request) sendLent(p []byte) (taken int) {
	c := r.conn
	first := r.head[:r.headLen]
	for turns := takeWait.turns; ; turns-- {
		c.piece = [2][]byte{first, p[taken:]}
		n, err := c.socket.sendSoon(c.piece[:], roomWait{each: takeWait.each, turns: min(turns, 1), first: true})
		r.sent += n
		if from := r.sent - r.headLen; from < 0 {
			first = r.head[r.sent:r.headLen]
		} else if from < taken {
			first = r.op.Data[from:taken]
		} else {
			if taken = r.sectorEnd(from); !copyLent(r.op.Data[from:taken], p[from:taken]) {
				return from // who reads the rest meets the error
			}
			first = r.op.Data[from:taken]
		}
		if n == 0 || err != nil || turns == 0 || r.sent == r.headLen+len(p) {
			return taken // who sends the rest meets the error again
		}
	}
}

// sectorEnd is where the sector ends, in the data of r, that byte from of it lies in; from
// itself where a sector begins.
func (r *request) sectorEnd(from int) int {
	sector := int64(r.conn.disk.SectorSize())
	end := (r.op.Offset + int64(from) + sector - 1) / sector * sector
	return int(min(end-r.op.Offset, r.op.Length))
}

// copyLent copies from memory that is lent, or reports false where nothing is behind that any
// more (see geomlib.Loan).
func copyLent(to, lent []byte) (ok bool) {
	if len(lent) == 0 {
		return true
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	copy(to, lent)
	return true
}

// beginTake takes the socket, unless somebody has it.
func (c *conn) beginTake() bool {
	s := &c.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing || s.dead {
		return false
	}
	s.writing = true
	return true
}

// leaveSocket lets others write, who may have queued replies meanwhile.
func (c *conn) leaveSocket() {
	s := &c.sender
	s.mu.Lock()
	s.writing = false
	kick := s.first != nil && !s.busy
	s.mu.Unlock()
	if kick {
		notify(c.kick)
	}
}

// endTaken ends a read of which something was sent.
func (c *conn) endTaken(r *request) {
	s := &c.sender
	whole := r.sent == r.headLen+len(r.op.Data)
	switch {
	case whole:
		r.next, r.sent = nil, 0
		n := c.recycle(r)
		s.mu.Lock()
		c.keepLocked(r, n)
		dead := s.dead
		s.mu.Unlock()
		if dead {
			c.exp.order.freed(c)
		}
	case r.op.Err != nil:
		// The client was told that there is data.
		c.counters.errors.Add(1)
		c.close(fmt.Errorf("amid the reply to a read: %w", r.op.Err))
		c.dropTaken(r)
	default:
		s.mu.Lock()
		if s.dead {
			s.mu.Unlock()
			c.dropTaken(r)
			return
		}
		r.next, r.body = nil, r.op.Data
		c.out.begin(r)
		c.out.more()
		c.out.wrote(r.sent)
		r.sent = 0
		s.handed = true
		s.mu.Unlock()
		notify(c.kick)
	}
}

// dropTaken forgets a read of which a part was sent, on a connection that is closed.
func (c *conn) dropTaken(r *request) {
	c.leaveSocket()
	r.sent = 0
	c.drop(r)
}
