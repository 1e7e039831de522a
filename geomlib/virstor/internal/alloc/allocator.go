// Package alloc hands out the physical chunks of a volume's components. What is free it
// knows from bitmaps that were built from the allocation map, never from counts.
//
// Components are named by their indices, which change while components leave; C is what
// its user calls a component by, which does not.
package alloc

import (
	"cmp"
	"sync"
)

// Phys names a physical chunk.
type Phys struct {
	Comp  uint16 // index of its component
	Chunk uint32
}

// Compare is the order in which the kernel class fills.
func (p Phys) Compare(q Phys) int {
	return cmp.Or(cmp.Compare(p.Comp, q.Comp), cmp.Compare(p.Chunk, q.Chunk))
}

// Grant is a chunk that was taken.
type Grant struct {
	At Phys
	// Zeroed: all of it reads as zeros, and will after the next flush of its component
	// whatever happens.
	Zeroed bool
}

// Allocator gives chunks out and takes them back. Its methods may be called by many
// goroutines at once.
type Allocator[C any] struct {
	spread bool // chunks are taken from the components in turn

	mu      sync.Mutex
	pools   []*Pool // by component index
	takers  int     // pools that chunks are taken from: the first ones
	free    int64   // over all open pools
	reserve int64   // chunks that ordinary takers leave
	turn    int     // spread: where the next chunk is looked for
	fill    bool    // for now components are filled one after the other, whatever spread is

	preparing preparation

	// holdings are the components with their pools, for whoever looks from outside:
	// each once and with its own, also while one changes its index.
	holdings []holding[C]
}

// holding is a component with its pool.
type holding[C any] struct {
	owner C
	pool  *Pool
}

// New makes an allocator of no components. Chunks are taken from component after
// component, as the kernel class does, or with spread from all in turn; of a component
// it is the lowest free one. Ordinary takers leave reserve chunks.
func New[C any](spread bool, reserve int64) *Allocator[C] {
	a := &Allocator[C]{spread: spread, reserve: reserve}
	a.preparing.ended.L = &a.mu
	return a
}

// Append adds the pool of the next component.
func (a *Allocator[C]) Append(p *Pool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools = append(a.pools, p)
	a.takers = len(a.pools)
	if !p.closed() {
		a.free += int64(p.free)
	}
}

// Hold makes comps those that Figures tells of; each has a pool, and they are in the
// order of their indices.
func (a *Allocator[C]) Hold(comps []C) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holdLocked(comps)
}

// holdLocked is Hold; a.mu is held.
func (a *Allocator[C]) holdLocked(comps []C) {
	next := make([]holding[C], len(comps))
	for i, c := range comps {
		next[i] = holding[C]{c, a.pools[i]}
	}
	a.holdings = next
}

// Renumber gives the pool of component last to index removed, whose pool is empty of data
// and closed, while comps names one component by both. Both indices name the pool until
// Truncate, but chunks are taken under the new one.
func (a *Allocator[C]) Renumber(comps []C, removed, last uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools[removed] = a.pools[last]
	a.takers = int(last)
	a.holdLocked(comps[:last])
}

// Truncate forgets the pools of all but comps, which are the first ones.
func (a *Allocator[C]) Truncate(comps []C) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.truncateLocked(comps)
}

// truncateLocked is Truncate; a.mu is held.
func (a *Allocator[C]) truncateLocked(comps []C) {
	a.pools = a.pools[:len(comps):len(comps)]
	a.takers = len(comps)
	a.holdLocked(comps)
}

// DropLast forgets the pool after those of comps, with what is free in it.
func (a *Allocator[C]) DropLast(comps []C) {
	a.lockToTake()
	defer a.mu.Unlock()
	if p := a.pools[len(comps)]; !p.closed() {
		a.free -= int64(p.free)
	}
	a.truncateLocked(comps)
}

// Take appends n free chunks to dst, or returns false and takes none. It leaves the
// reserve unless all is true.
func (a *Allocator[C]) Take(dst []Grant, n int, all bool) ([]Grant, bool) {
	a.lockToTake()
	defer a.mu.Unlock()
	avail := a.free
	if !all {
		avail -= a.reserve
	}
	if int64(n) > avail {
		return dst, false
	}
	for range n {
		g, _ := a.takeLocked() // cannot fail: free is the sum of the open pools
		dst = append(dst, g)
	}
	return dst, true
}

// takeLocked takes one chunk; a.mu is held.
func (a *Allocator[C]) takeLocked() (Grant, bool) {
	start := 0
	if a.spread && !a.fill {
		start = a.turn
	}
	for i := range a.takers {
		c := (start + i) % a.takers
		if chunk, zeroed, ok := a.takeFromLocked(uint16(c)); ok {
			a.turn = c + 1
			return Grant{Phys{uint16(c), chunk}, zeroed}, true
		}
	}
	return Grant{}, false
}

// takeFromLocked takes the lowest free chunk of a component, unless it is closed; a.mu is
// held.
func (a *Allocator[C]) takeFromLocked(comp uint16) (chunk uint32, zeroed, ok bool) {
	p := a.pools[comp]
	if p.closed() {
		return 0, false, false
	}
	if chunk, zeroed, ok = p.lowest(); ok {
		a.free--
	}
	return chunk, zeroed, ok
}

// TakeFrom takes the lowest free chunk of one component, unless it is closed.
func (a *Allocator[C]) TakeFrom(comp uint16) (Phys, bool) {
	a.lockToTake()
	defer a.mu.Unlock()
	chunk, _, ok := a.takeFromLocked(comp)
	return Phys{comp, chunk}, ok
}

// TakeFirst takes the free chunk that lies first, whatever the order of the volume.
func (a *Allocator[C]) TakeFirst() (Phys, bool) {
	a.lockToTake()
	defer a.mu.Unlock()
	for c := range a.takers {
		if chunk, _, ok := a.takeFromLocked(uint16(c)); ok {
			return Phys{uint16(c), chunk}, true
		}
	}
	return Phys{}, false
}

// Put makes a chunk free again. Nothing may be on its way to it, and no map that may be
// in force after a crash names it.
func (a *Allocator[C]) Put(c Phys) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[c.Comp]
	if p.release(c.Chunk) && !p.closed() {
		a.free++
	}
}

// PutAll is Put of each of chunks.
func (a *Allocator[C]) PutAll(chunks []Phys) {
	for _, c := range chunks {
		a.Put(c)
	}
}

// SetBar stops allocation from a component for the reason b, or takes that reason away.
func (a *Allocator[C]) SetBar(comp uint16, b Bar, on bool) {
	a.lockToTake()
	defer a.mu.Unlock()
	p := a.pools[comp]
	was := p.closed()
	if p.bars &^= b; on {
		p.bars |= b
	}
	switch {
	case !was && p.closed():
		a.free -= int64(p.free)
	case was && !p.closed():
		a.free += int64(p.free)
	}
}

// SetFill lets components be filled one after the other for now, or the order be what it
// is otherwise, and returns what was set before.
func (a *Allocator[C]) SetFill(on bool) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was, a.fill = a.fill, on
	return was
}

// SetReserve makes n the chunks that ordinary takers leave.
func (a *Allocator[C]) SetReserve(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserve = n
}
