package nbdcomp

import (
	"sync"

	"github.com/gvirstor/gvirstor/geomlib"
)

var _ geomlib.Starter = (*provider)(nil)

// transfer is a request that has no goroutine of its own.
type transfer struct {
	p *provider
	s *session
	t *geomlib.Transfer
	b *geomlib.Batch
	e *entry // of a write
}

// transfers are those that nobody uses.
var transfers = sync.Pool{New: func() any { return new(transfer) }}

// give makes x nobody's.
func (x *transfer) give() {
	*x = transfer{}
	transfers.Put(x)
}

// StartRead is geomlib.Starter's. A read whose session is lost ends with that: who asks
// again waits for the next one.
func (p *provider) StartRead(t *geomlib.Transfer) bool {
	if int64(len(t.Data)) > p.max || p.check("read", t.Offset, int64(len(t.Data))) != nil {
		return false
	}
	p.mu.Lock()
	s, can := p.session, p.reach == reached
	p.mu.Unlock()
	if !can {
		return false
	}
	x := transfers.Get().(*transfer)
	c, ends := s.gathering()
	x.p, x.s, x.t, x.b = p, s, t, ends
	if c.StartRead(t.Data, t.Offset, x) {
		return true
	}
	x.give()
	return false
}

// StartWrite is geomlib.Starter's.
func (p *provider) StartWrite(t *geomlib.Transfer) bool {
	n := int64(len(t.Data))
	if n > p.maxWrite || p.checkWrite("write", t.Offset, n) != nil {
		return false
	}
	p.mu.Lock()
	e := p.beginAtOnceLocked(t.Offset, n)
	p.mu.Unlock()
	if e == nil {
		return false
	}
	e.fill(t.Data, p.proofs.table)
	p.mu.Lock()
	if !p.changesAtOnceLocked() {
		p.withdrawLocked(e)
		p.mu.Unlock()
		return false
	}
	e.sent = true
	s := p.session
	p.mu.Unlock()
	x := transfers.Get().(*transfer)
	c, ends := s.gathering()
	x.p, x.s, x.t, x.b, x.e = p, s, t, ends, e
	if c.StartWrite(t.Data, t.Offset, x) {
		return true
	}
	x.give()
	// A session that was lost meanwhile may have had it done again already.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != s || p.reach != reached {
		p.endLaterLocked(e, t)
		return true
	}
	p.withdrawLocked(e)
	return false
}

// changesAtOnceLocked reports whether something may be changed without waiting. p.mu is
// held.
func (p *provider) changesAtOnceLocked() bool {
	return p.reach == reached && (p.guard == nil || p.guard.MaySend())
}

// beginAtOnceLocked is begin of a write, or returns nil where that would wait. p.mu is held.
func (p *provider) beginAtOnceLocked(off, n int64) *entry {
	if !p.changesAtOnceLocked() || p.journal.busy(off, n) && p.set.breaks&breakOverlap == 0 {
		return nil
	}
	e := p.journal.add(kindWrite, off, n)
	if e != nil {
		p.proofs.forget(off, n)
	}
	return e
}

// withdrawLocked takes back a change that was never sent. p.mu is held.
func (p *provider) withdrawLocked(e *entry) {
	p.journal.remove(e)
	p.finishLocked(e)
}

// Push is geomlib.Starter's.
func (p *provider) Push() {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	s.push()
}

// Answered is nbdclient.Answerer's.
func (x *transfer) Answered(err error) {
	p, s, t, e := x.p, x.s, x.t, x.e
	t.Batch = x.b
	x.give()
	lost := p.left(s, err)
	if e == nil {
		p.end("read", t, err)
		return
	}
	p.mu.Lock()
	if lost {
		p.endLaterLocked(e, t)
		p.mu.Unlock()
		return
	}
	p.answeredLocked(e, err)
	p.finishLocked(e)
	p.mu.Unlock()
	p.end("write", t, err)
}

// end ends t.
func (p *provider) end(what string, t *geomlib.Transfer, err error) {
	t.Err = nil
	if err != nil {
		t.Err = p.failed(what, t.Offset, int64(len(t.Data)), err)
	}
	t.End.Ended(t)
}

// endLaterLocked ends t when it is known what became of e. p.mu is held, and p.tasks not
// ended: a session of p has, or had until now, one.
func (p *provider) endLaterLocked(e *entry, t *geomlib.Transfer) {
	t.Batch = nil
	p.tasks.Go(func() {
		p.mu.Lock()
		err := p.outcomeLocked(e)
		p.finishLocked(e)
		p.mu.Unlock()
		p.end("write", t, err)
	})
}
