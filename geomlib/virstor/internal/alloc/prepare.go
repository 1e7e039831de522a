package alloc

import "sync"

// preparation is the free chunk that is being zeroed ahead of its use. It is part
// of the allocator and guarded by its mu. The chunk stays free.
type preparation struct {
	on     bool
	wanted bool // somebody waits in lockToTake: stop after the piece under way
	ended  sync.Cond
}

// lockToTake takes a.mu when no free chunk is being zeroed. Whoever takes chunks,
// or changes which can be taken, locks with it: zeros that are on their way must
// not overtake data.
func (a *Allocator[C]) lockToTake() {
	a.mu.Lock()
	for a.preparing.on {
		a.preparing.wanted = true
		a.preparing.ended.Wait()
	}
}

// Prepare picks the first of the next stock chunks in the order of allocation that
// is not zeroed yet, and begins its preparation, which Prepared ends. Whoever wants to
// take chunks meanwhile waits for that.
func (a *Allocator[C]) Prepare(stock int) (p *Pool, at Phys, ok bool) {
	a.lockToTake()
	defer a.mu.Unlock()
	each := stock
	if a.spread {
		each = (stock + a.takers - 1) / max(1, a.takers)
	}
	for c, p := range a.pools[:a.takers] {
		if p.closed() {
			continue
		}
		n := 0
		for chunk := range p.eachFree {
			if n == each || stock == 0 {
				break
			}
			if !p.zeroed[chunk] {
				a.preparing.on, a.preparing.wanted = true, false
				return p, Phys{uint16(c), chunk}, true
			}
			n++
			stock--
		}
	}
	return nil, Phys{}, false
}

// Prepared ends the preparation of a chunk of p. done: it is zeroed.
func (a *Allocator[C]) Prepared(p *Pool, chunk uint32, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if done {
		if p.zeroed == nil {
			p.zeroed = make(map[uint32]bool)
		}
		p.zeroed[chunk] = true
	}
	a.preparing.on = false
	a.preparing.ended.Broadcast()
}

// IsWanted reports whether the preparation is in somebody's way.
func (a *Allocator[C]) IsWanted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.preparing.wanted
}
