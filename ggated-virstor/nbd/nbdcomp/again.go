package nbdcomp

import (
	"errors"
	"sync"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// batch is how many changes are done again at a time.
const batch = 32

// again does on s, in their order, all changes that were sent and that no flush has
// covered: those whose answer is known, and those that somebody waits for. It returns how
// many. What the server refuses now is lost: whoever waits for it is told, and else the
// next flush fails.
func (p *provider) again(s *session) (n int, err error) {
	bufs := make([][]byte, batch)
	errs := make([]error, batch)
	p.mu.Lock()
	defer p.mu.Unlock()
	for from := p.journal.first; from != nil; {
		some := p.together(from)
		if len(some) == 0 {
			break
		}
		p.mu.Unlock()
		if err := p.mayRepeat(); err != nil {
			p.mu.Lock()
			return n, err
		}
		var all sync.WaitGroup
		for i, e := range some {
			all.Go(func() {
				bufs[i] = bufs[i][:0]
				for _, part := range e.data {
					bufs[i] = append(bufs[i], part...)
				}
				errs[i] = s.change(e.kind, e.off, e.n, bufs[i])
			})
		}
		all.Wait()
		p.mu.Lock()
		loses := false
		for i, e := range some {
			if errors.Is(errs[i], nbdclient.ErrClosed) {
				return 0, errs[i]
			}
			loses = p.doneAgainLocked(e, errs[i]) || loses
		}
		if loses {
			p.mu.Unlock()
			p.tellOfLoss()
			p.mu.Lock()
		}
		n += len(some)
		from = some[len(some)-1].next // it is there still: what was sent stays until p is reached
	}
	return n, nil
}

// together are the next changes to do again, from e on, of which none overlaps another.
func (p *provider) together(e *entry) (some []*entry) {
	for ; e != nil && len(some) < batch; e = e.next {
		if !e.sent || e.void || p.set.breaks.skips(e.kind) {
			continue
		}
		for _, other := range some {
			if e.overlaps(other.off, other.n) {
				return some
			}
		}
		some = append(some, e)
	}
	return some
}

// doneAgainLocked takes the answer to a change that was done again, and reports whether that
// loses what was said to be done. p.mu is held.
func (p *provider) doneAgainLocked(e *entry, err error) (loses bool) {
	if err != nil {
		e.void, e.err = true, err
		if loses = e.answer != 0; loses {
			p.untold = p.failed("write again", e.off, e.n, err)
		}
	}
	p.journal.land(e)
	p.tellLocked()
	return loses
}
