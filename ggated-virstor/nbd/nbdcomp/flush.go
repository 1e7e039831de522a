package nbdcomp

import (
	"errors"
	"slices"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// flushes are those that the server has not answered, whoever asked for them: a Flush, a
// journal that fills, a lease. Servers, as the systems that they are on, tell of what was
// lost once: to one of them, while others that are under way at the same time succeed. So a
// Flush waits for those that began before its answer, and tells what one of them failed with.
type flushes struct {
	running []uint64 // their numbers
	last    uint64   // number
}

// underWay reports whether one is that has this number or a lower one.
func (f *flushes) underWay(last uint64) bool {
	return slices.ContainsFunc(f.running, func(n uint64) bool { return n <= last })
}

// flushOn has the server flush. That it could not is for a Flush to tell, too.
func (p *provider) flushOn(s *session) error {
	p.mu.Lock()
	p.flushes.last++
	n := p.flushes.last
	p.flushes.running = append(p.flushes.running, n)
	p.mu.Unlock()
	err := s.conn().Flush()
	failed := err != nil && !errors.Is(err, nbdclient.ErrClosed)
	if failed {
		p.tellOfLoss()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed {
		p.untold = err
	}
	p.flushes.running = slices.DeleteFunc(p.flushes.running, func(m uint64) bool { return m == n })
	p.tellLocked()
	return err
}

// toldOf is how a Flush ends that the server has answered with err.
func (p *provider) toldOf(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for last := p.flushes.last; p.flushes.underWay(last); {
		p.waitLocked()
	}
	if p.untold != nil {
		err, p.untold = p.untold, nil
	}
	return err
}

// tellOfLoss has it known, after the death of this process, too, that something may be lost
// that was written. It is called before anybody could take that for flushed.
func (p *provider) tellOfLoss() {
	if p.flushFails != nil {
		p.flushFails(p.name)
	}
}
