package serve

import (
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// slot is one request from START to DONE, and the buffer for it.
type slot struct {
	p     *Publication
	io    gate.IO
	req   virstor.Request
	owner atomic.Int32 // an ownership
	place atomic.Int32 // whether it is in p.order

	// buf is the slot's share of the publication's memory. A request that
	// is kept back or held gives it up: its data moves to memory of its
	// own length, and the slot ends with the request.
	buf []byte
	// big is for one request that is longer than buf.
	big []byte

	// Under p.mu.
	orderEntry
	held       bool
	prev, next *slot // in one of p's lists
}

// Who may touch a slot that was submitted: while its receiver is in Submit, the
// first of receiver and volume to be through leaves it to the other.
const (
	ownedByVolume   int32 = iota // no receiver waits for it
	ownedBySubmit                // a receiver is in Submit
	ownedByReceiver              // completed before Submit returned
)

// Where a slot is that was taken. One that is served straight is put into the order, under
// p.mu, by whoever is first to know that others may come while it is under way: its
// receiver, when Submit returns without an answer; the watchdog, before it passes the turn
// on; who is told that it is held.
const (
	placeInOrder int32 = iota // or was, or is to be
	placeNone                 // served straight
	placeOver                 // answered, and was in no order
)

// buffer is where START puts a write's data.
func (s *slot) buffer() []byte {
	if s.big != nil {
		return s.big
	}
	return s.buf
}

// grow gives the slot a buffer of n bytes or more.
func (s *slot) grow(n int64) error {
	s.shrink()
	big, err := gate.NewBuffer(int(n))
	if err != nil {
		return err
	}
	s.big = big
	return nil
}

// shrink gives back what grow took.
func (s *slot) shrink() {
	if s.big == nil {
		return
	}
	if err := gate.FreeBuffer(s.big); err != nil {
		s.p.log.Error("buffer of a long request not returned", "error", err)
	}
	s.big = nil
}

// moveOut makes the slot independent of the publication's memory, for a
// request that may stay for hours. It returns the buffer that is free now.
func (s *slot) moveOut() (free []byte) {
	free, s.buf = s.buf, nil
	if s.big == nil && free != nil {
		s.req.Data = append([]byte(nil), s.req.Data...) // nothing but a write's
		s.io.Data = nil
	}
	return free
}

// Complete answers the request. The volume calls it, on any goroutine.
func (s *slot) Complete(r *virstor.Request) {
	p := s.p
	errno, answer := errnoOf(r.Err)
	ending := s.place.Load() != placeNone
	if ending {
		// Before the answer: with it the client may send another.
		p.ending.Add(1)
	}
	if answer {
		p.answer(s, errno)
	}
	p.over(s, ending)
	if s.owner.Swap(ownedByReceiver) == ownedByVolume {
		p.recycle(s)
	}
}

// Held is told that the write waits for space. Nothing waits for it then.
func (s *slot) Held(*virstor.Request) bool {
	free := s.moveOut()
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enrollLocked(s)
	s.held = true
	p.held++
	p.heldBytes += s.io.Length
	p.unanswered.Add(-1)
	p.order.leave(s, &p.ready)
	p.wakeDispatcherLocked()
	if free != nil {
		p.putSlotLocked(&slot{p: p, buf: free})
	}
	p.checkDoneLocked()
	return true
}

// Resumed is told that the held write goes on.
func (s *slot) Resumed(*virstor.Request) bool {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unholdLocked(s)
	p.order.rejoin(s)
	return true
}
