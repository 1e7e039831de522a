package serve

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// errStopped ends a receiver that was told to.
var errStopped = errors.New("stopped")

// retryPause is how long a receiver waits before it asks again what the kernel
// answers at once. A hot loop of STARTs would keep DESTROY from finishing.
const retryPause = 100 * time.Millisecond

// receiver is one of the goroutines that take requests, one at a time.
type receiver struct {
	*gate.Receiver
	slot   *slot         // empty, or nil
	rested time.Duration // when it last let others run
	served uint          // requests served straight
}

// turn is the right to take requests from the kernel. One receiver has it at a
// time, or it is in Publication.turns. What is in it is its holder's.
type turn struct {
	policy   servePolicy
	slot     *slot     // the last that was served inline
	canceled time.Time // the last ECANCELED
}

// receive takes requests until the publication stops or the unit is gone.
func (p *Publication) receive(r *receiver) {
	for {
		if err := p.serveTurn(r); err != nil {
			p.receiverEnds(r, err)
			return
		}
	}
}

// serveTurn waits for the turn, and takes and serves requests until it is
// another's.
func (p *Publication) serveTurn(r *receiver) error {
	t := p.waitTurn(r)
	for {
		if err := p.takeOne(r, t); err != nil {
			p.passTurn(r, t)
			return err
		}
		if p.isStraight(r.slot, t) {
			if !p.serveStraight(r, t) {
				return nil
			}
			if r.served++; r.served%restLook == 0 {
				r.letOthersRun(time.Since(p.begun))
			}
			continue
		}
		s := r.slot
		run, only := p.arrive(s)
		if !run {
			r.slot = nil // it is with those that wait
		}
		now := time.Since(p.begun)
		switch inline := t.policy.inline(now, only); {
		case !run:
		case inline:
			if !p.serveInline(r, t) {
				return nil
			}
		default:
			p.submit(r, false)
		}
		r.letOthersRun(now)
	}
}

// isStraight reports whether s is served straight: a read or a write which nothing
// that was taken before is under way beside.
func (p *Publication) isStraight(s *slot, t *turn) bool {
	return (s.kind == kindRead || s.kind == kindWrite) && p.unanswered.Load() == 0 && !p.readsOnly.Load() &&
		t.policy.straight(p.dog.slow.Load())
}

// serveStraight serves what r took, and has no place in the order while nothing can
// come that it would be before: until it is done, or goes on without r, who
// takes the requests. It reports whether r still has the turn.
func (p *Publication) serveStraight(r *receiver, t *turn) bool {
	s := r.slot
	s.place.Store(placeNone)
	t.slot = s
	number := p.dog.begin()
	p.submit(r, true)
	return p.keepTurn(r, t, number)
}

// waitTurn waits until the turn is the caller's.
func (p *Publication) waitTurn(r *receiver) *turn {
	t := <-p.turns
	r.Enter()
	return t
}

// passTurn lets the next receiver take requests.
func (p *Publication) passTurn(r *receiver, t *turn) {
	r.Leave()
	p.turns <- t
}

// passOn passes the turn on in place of a receiver that is stuck.
func (p *Publication) passOn(t *turn) {
	p.enroll(t.slot)
	t.policy.stuck()
	p.turns <- t
}

// serveInline serves what r took, waiting for the disk, and reports whether r
// still has the turn: when it took too long that was passed on.
func (p *Publication) serveInline(r *receiver, t *turn) bool {
	t.slot = r.slot
	number := p.dog.begin()
	p.submit(r, true)
	return p.keepTurn(r, t, number)
}

// keepTurn ends what dog.begin began.
func (p *Publication) keepTurn(r *receiver, t *turn, number uint64) bool {
	if p.dog.end(number) {
		return true
	}
	r.Leave()
	t.policy.back()
	return false
}

// restEvery is how often a receiver lets others run. A goroutine that has run for
// 10 ms is preempted by Go's scheduler, which then looks every 20 µs, sends its
// thread signals and takes its P away in every system call (sysmon and retake in
// runtime/proc.go).
const restEvery = 5 * time.Millisecond

// restLook is how many requests a receiver serves straight to one look at the clock.
const restLook = 32

func (r *receiver) letOthersRun(now time.Duration) {
	if now-r.rested < restEvery {
		return
	}
	r.rested = now
	r.Leave() // a goroutine that is bound to its thread cannot just go on
	runtime.Gosched()
	r.Enter()
}

// takeOne takes one request into the receiver's slot.
func (p *Publication) takeOne(r *receiver, t *turn) error {
	if r.slot == nil {
		if r.slot = p.takeSlot(); r.slot == nil {
			return errStopped
		}
	}
	s := r.slot
	for {
		if err := p.start(r, t); err != nil {
			return err
		}
		errno := p.fill(s)
		if errno == 0 {
			return nil
		}
		p.answer(s, errno)
		s.shrink()
	}
}

// start is START until there is a request in the receiver's slot.
func (p *Publication) start(r *receiver, t *turn) error {
	s := r.slot
	var claim int64 // length of a delete that needs no buffer
	for {
		if p.stopping() {
			return errStopped
		}
		var err error
		if claim > 0 {
			err = r.StartClaiming(&s.io, claim)
		} else {
			err = r.Start(&s.io, s.buffer())
		}
		switch {
		case err == nil:
			s.number = p.taken.Add(1)
			return nil
		case errors.Is(err, gate.ErrInterrupted):
			// Somebody signals. If it was Stop, the look above tells.
		case errors.Is(err, gate.ErrCanceled):
			p.afterCancel(t)
		case errors.Is(err, gate.ErrTooLong) && s.io.Cmd == gate.Delete:
			claim = s.io.Length
		case errors.Is(err, gate.ErrTooLong):
			if err := s.grow(s.io.Length); err != nil {
				p.log.Error("no buffer for a long write; trying again", "unit", p.unit, "error", err)
				p.pause()
			}
		case errors.Is(err, gate.ErrBadBuffer) && claim > 0:
			claim = 0 // a write is first in the queue now
		default:
			return err
		}
	}
}

// afterCancel follows ECANCELED, which older kernels answer for a signal too. A
// first one is asked again at once, since for a signal that is all there is to
// do; while a unit is being destroyed, the next comes at once, and a pause lets
// DESTROY finish, after which there is ENXIO.
func (p *Publication) afterCancel(t *turn) {
	if time.Since(t.canceled) < retryPause {
		p.pause()
	}
	t.canceled = time.Now()
}

// pause waits for retryPause, or less when the publication stops.
func (p *Publication) pause() {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.stop:
	}
}

// fill makes a volume's request of the kernel's, or says how to answer it.
func (p *Publication) fill(s *slot) gate.Errno {
	q := &s.req
	q.Offset, q.Length, q.Data, q.Flags, q.Done = s.io.Offset, s.io.Length, nil, 0, s
	s.lo, s.hi = q.Offset, q.Offset+q.Length
	if q.Offset < 0 || q.Length < 0 || s.hi < s.lo {
		return gate.EINVAL
	}
	switch s.io.Cmd {
	case gate.Read:
		if q.Length > int64(len(s.buffer())) {
			if err := s.grow(q.Length); err != nil {
				p.log.Error("no buffer for a long read", "unit", p.unit, "error", err)
				return gate.EIO
			}
		}
		q.Op, s.kind = virstor.OpRead, kindRead
		q.Data = s.buffer()[:q.Length:q.Length]
		s.io.SetData(q.Data)
	case gate.Write:
		q.Op, s.kind = virstor.OpWrite, kindWrite
		q.Flags = virstor.NoHold
		q.Data = s.buffer()[:q.Length:q.Length]
	case gate.Delete:
		q.Op, s.kind = virstor.OpDelete, kindDelete
	case gate.Flush:
		q.Op, s.kind = virstor.OpFlush, kindFlush
		q.Offset, q.Length, s.lo, s.hi = 0, 0, 0, 0 // the kernel's offset is the device's end
	default: // BIO_SPEEDUP, and what future kernels think of
		return gate.EOPNOTSUPP
	}
	return 0
}

// arrive gives the request its place among the others, and reports whether it
// may run now: otherwise it has its place among those that wait. only: of what was
// taken before, everything is answered, or about to be.
func (p *Publication) arrive(s *slot) (run, only bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	only = p.unanswered.Load() == p.ending.Load()
	p.unanswered.Add(1)
	s.place.Store(placeInOrder)
	if p.order.arrive(s) {
		return true, only
	}
	s.owner.Store(ownedByVolume)
	if s.untilActive {
		if free := s.moveOut(); free != nil {
			p.putSlotLocked(&slot{p: p, buf: free})
		}
	}
	return false, only
}

// enroll gives s, which runs, its place among the others, if it has none yet and is not
// answered.
func (p *Publication) enroll(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enrollLocked(s)
}

func (p *Publication) enrollLocked(s *slot) {
	if s.place.CompareAndSwap(placeNone, placeInOrder) {
		p.unanswered.Add(1)
		p.order.enroll(s)
	}
}

// submit gives the request that r took to the volume. When it is answered at
// once, the slot is r's again.
func (p *Publication) submit(r *receiver, mayBlock bool) {
	if !p.submitSlot(r.slot, mayBlock) {
		r.slot = nil
	}
}

// submitSlot gives the request to the volume, and reports whether it is answered
// and its slot the caller's again.
func (p *Publication) submitSlot(s *slot, mayBlock bool) bool {
	if !p.answering.enter() {
		// Abandoned: the kernel gives the request to whoever comes next.
		p.over(s, false)
		s.shrink()
		return s.buf != nil
	}
	defer p.answering.leave()
	if mayBlock && (s.kind == kindRead || s.kind == kindWrite) {
		s.req.Flags |= virstor.MayBlock
	}
	s.owner.Store(ownedBySubmit)
	p.disk.Submit(&s.req)
	if s.place.Load() == placeNone && s.owner.Load() != ownedByReceiver {
		p.enroll(s) // it goes on, and others come
	}
	if s.owner.Swap(ownedByVolume) != ownedByReceiver {
		return false
	}
	s.shrink()
	return s.buf != nil
}

// answer sends the request's answer. A unit that is gone needs none.
func (p *Publication) answer(s *slot, errno gate.Errno) {
	if !p.answering.enter() {
		return
	}
	defer p.answering.leave()
	s.io.Error = errno
	if errno != 0 {
		p.failed.Add(1)
	}
	if err := p.gate.Done(&s.io); err != nil && !errors.Is(err, gate.ErrGone) {
		p.log.Error("answer not taken", "request", s.io.Cmd, "offset", s.io.Offset, "length", s.io.Length, "error", err)
	}
}

// receiverEnds notes why a receiver ends, and ends the others with it.
func (p *Publication) receiverEnds(r *receiver, err error) {
	if !errors.Is(err, errStopped) {
		p.endAnswers() // first: who sees Err may count on nothing being submitted any more
		p.mu.Lock()
		if p.err == nil {
			p.err = fmt.Errorf("serve unit %d: %w", p.unit, err)
		}
		p.mu.Unlock()
	}
	if r.slot != nil {
		r.slot.shrink()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receivers--
	if r.slot != nil {
		p.putSlotLocked(r.slot)
		r.slot = nil
	}
	if p.receivers == 0 {
		close(p.out)
	}
	p.checkDoneLocked()
}
