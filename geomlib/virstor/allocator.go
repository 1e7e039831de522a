package virstor

import (
	"math/bits"
	"sync"
)

// AllocOrder says which component gives the next chunk.
type AllocOrder uint8

// The allocation orders. Both take the lowest free chunk of a component.
const (
	// Fill uses component after component, as the kernel class does.
	Fill AllocOrder = iota
	// Spread takes the components in turn.
	Spread
)

func (o AllocOrder) String() string {
	if o == Spread {
		return "spread"
	}
	return "fill"
}

// allocator hands out physical chunks. It knows what is free from bitmaps
// that were built from the map, never from counts.
type allocator struct {
	order AllocOrder

	mu      sync.Mutex
	pools   []*chunkPool // by component index
	takers  int          // pools that chunks are taken from: the first ones
	free    int64        // over all usable pools
	reserve int64        // chunks that ordinary takers leave
	turn    int          // Spread: where the next chunk is looked for
	fill    bool         // for now the order is Fill, whatever it is

	preparing preparation
}

// chunkPool is the free chunks of one component.
type chunkPool struct {
	bits   []uint64 // bit set: free
	first  uint32   // chunks below are reserved
	total  uint32   // chunks that may ever be allocated, reserved ones excluded
	free   uint32
	hint   int             // no free chunk below word hint
	closed bool            // nothing is taken from it: failed, or being emptied
	kept   map[uint32]bool // claimed to become reserved chunks
	zeroed map[uint32]bool // free chunks that were zeroed ahead
}

// grant is a chunk that was taken. zeroed: all of it reads as zeros, and will
// after the next flush of its component whatever happens.
type grant struct {
	at     phys
	zeroed bool
}

// newChunkPool makes the pool of chunks [first, end), all free.
func newChunkPool(first, end uint32) *chunkPool {
	p := &chunkPool{bits: make([]uint64, (uint64(end)+63)/64), first: first}
	if end > first {
		p.total = end - first
		for c := first; c < end; {
			if c%64 == 0 && end-c >= 64 {
				p.bits[c/64] = ^uint64(0)
				c += 64
				continue
			}
			p.bits[c/64] |= 1 << (c % 64)
			c++
		}
	}
	p.free = p.total
	return p
}

// claim marks chunk as used and reports whether it was free.
func (p *chunkPool) claim(chunk uint32) bool {
	w, b := int(chunk/64), uint64(1)<<(chunk%64)
	if w >= len(p.bits) || p.bits[w]&b == 0 {
		return false
	}
	p.bits[w] &^= b
	p.free--
	delete(p.zeroed, chunk)
	return true
}

// claimRun marks n chunks from first on as used, if all of them are free.
func (p *chunkPool) claimRun(first, n uint32) bool {
	if uint64(first)+uint64(n) > uint64(len(p.bits))*64 {
		return false
	}
	each := func(do func(w *uint64, mask uint64) bool) bool {
		for c, end := first, first+n; c < end; {
			k := min(64-c%64, end-c)
			if !do(&p.bits[c/64], ^uint64(0)>>(64-k)<<(c%64)) {
				return false
			}
			c += k
		}
		return true
	}
	if !each(func(w *uint64, mask uint64) bool { return *w&mask == mask }) {
		return false
	}
	each(func(w *uint64, mask uint64) bool { *w &^= mask; return true })
	p.free -= n
	return true
}

// lowest takes the lowest free chunk.
func (p *chunkPool) lowest() (chunk uint32, zeroed, ok bool) {
	if p.free == 0 {
		return 0, false, false
	}
	for w := p.hint; w < len(p.bits); w++ {
		if p.bits[w] != 0 {
			p.hint = w
			chunk = uint32(w*64 + bits.TrailingZeros64(p.bits[w]))
			zeroed = p.zeroed[chunk]
			return chunk, zeroed, p.claim(chunk)
		}
	}
	return 0, false, false
}

func (p *chunkPool) release(chunk uint32) {
	w := int(chunk / 64)
	p.bits[w] |= 1 << (chunk % 64)
	p.free++
	p.hint = min(p.hint, w)
}

// addPool appends the next component's pool.
func (a *allocator) addPool(p *chunkPool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools = append(a.pools, p)
	a.takers = len(a.pools)
	a.free += int64(p.free)
}

// poolCount is the number of components that have a pool.
func (a *allocator) poolCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pools)
}

// renumber gives the pool of component last to index removed, whose pool is
// empty of data and closed. Both indexes name the pool until truncate, but
// chunks are taken under the new one.
func (a *allocator) renumber(removed, last uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools[removed] = a.pools[last]
	a.takers = int(last)
}

// truncate forgets the pools from n on.
func (a *allocator) truncate(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools = a.pools[:n]
	a.takers = n
}

// used is the number of chunks of a component that are taken.
func (a *allocator) used(comp uint16) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pools[comp].total - a.pools[comp].free
}

// take appends n free chunks to dst, or returns false and takes none. It
// leaves the reserve unless all is true.
func (a *allocator) take(dst []grant, n int, all bool) ([]grant, bool) {
	a.lockSettled()
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
func (a *allocator) takeLocked() (grant, bool) {
	start := 0
	if a.order == Spread && !a.fill {
		start = a.turn
	}
	for i := range a.takers {
		c := (start + i) % a.takers
		p := a.pools[c]
		if p.closed {
			continue
		}
		if chunk, zeroed, ok := p.lowest(); ok {
			a.free--
			a.turn = c + 1
			return grant{phys{uint16(c), chunk}, zeroed}, true
		}
	}
	return grant{}, false
}

// takeFrom takes the lowest free chunk of one component, unless it is closed.
func (a *allocator) takeFrom(comp uint16) (phys, bool) {
	a.lockSettled()
	defer a.mu.Unlock()
	p := a.pools[comp]
	if p.closed {
		return phys{}, false
	}
	chunk, _, ok := p.lowest()
	if ok {
		a.free--
	}
	return phys{comp, chunk}, ok
}

// put makes a chunk free again.
func (a *allocator) put(c phys) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[c.comp]
	p.release(c.chunk)
	if !p.closed {
		a.free++
	}
}

// setClosed stops (or resumes) allocation from a component.
func (a *allocator) setClosed(comp uint16, closed bool) {
	a.lockSettled()
	defer a.mu.Unlock()
	p := a.pools[comp]
	if p.closed == closed {
		return
	}
	p.closed = closed
	if closed {
		a.free -= int64(p.free)
	} else {
		a.free += int64(p.free)
	}
}

// setFill makes the order Fill for now, or what it is otherwise, and returns what
// was set before.
func (a *allocator) setFill(on bool) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was, a.fill = a.fill, on
	return was
}

func (a *allocator) setReserve(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserve = n
}

// available is what ordinary writes may take, in chunks, never negative.
func (a *allocator) available() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(0, a.free-a.reserve)
}

// counts returns the chunks of one component that may be allocated and those
// that are free.
func (a *allocator) counts(comp int) (total, free uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pools[comp].total, a.pools[comp].free
}

// dense reports whether the used chunks of comp are the lowest ones, and the
// first free chunk (first when nothing is used).
func (a *allocator) dense(comp int, first uint32) (next uint32, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[comp]
	next = first + p.total - p.free
	for c := first; c < next; c++ {
		if p.bits[c/64]&(1<<(c%64)) != 0 {
			return next, false
		}
	}
	return next, true
}
