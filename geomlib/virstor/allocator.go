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

	// holdings are the components with their pools, for whoever looks from outside:
	// each once and with its own, also while one changes its index.
	holdings []holding
}

// holding is a component with its pool.
type holding struct {
	c    *component
	pool *chunkPool
}

// figure is what a component has to give, at one moment for all, in chunks.
type figure struct {
	c           *component
	total, free uint32
}

// figures are those of all components, by index.
func (a *allocator) figures() []figure {
	a.mu.Lock()
	defer a.mu.Unlock()
	fs := make([]figure, len(a.holdings))
	for i, h := range a.holdings {
		fs[i] = figure{h.c, h.pool.total, h.pool.free}
	}
	return fs
}

// holdLocked makes comps the holdings. a.mu is held, and the pools are by index.
func (a *allocator) holdLocked(comps []*component) {
	next := make([]holding, len(comps))
	for i, c := range comps {
		next[i] = holding{c, a.pools[i]}
	}
	a.holdings = next
}

// hold is holdLocked.
func (a *allocator) hold(comps []*component) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holdLocked(comps)
}

// chunkPool is the free chunks of one component.
type chunkPool struct {
	bits   []uint64 // bit set: free
	first  uint32   // chunks below are reserved
	total  uint32   // chunks that may ever be allocated, reserved ones excluded
	free   uint32
	hint   int             // no free chunk below word hint
	bars   bar             // why nothing is taken from it
	kept   map[uint32]bool // claimed to become reserved chunks
	zeroed map[uint32]bool // free chunks that were zeroed ahead
}

// bar is a reason why nothing is taken from a pool. They come and go on their own: an
// evacuation that is given up must not open a component whose flush has failed.
type bar uint8

const (
	barFailed  bar = 1 << iota // a flush failed; for as long as the volume is open
	barLeaving                 // the component is being emptied or removed
	barRefused                 // it takes no writes
)

// closed reports whether nothing is taken from the pool.
func (p *chunkPool) closed() bool { return p.bars != 0 }

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

// renumber, while comps names one component twice, gives the pool of component last to index removed, whose pool is
// empty of data and closed. Both indexes name the pool until truncate, but
// chunks are taken under the new one.
func (a *allocator) renumber(comps []*component, removed, last uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools[removed] = a.pools[last]
	a.takers = int(last)
	a.holdLocked(comps[:last])
}

// truncate forgets the pools of all but comps, which are the first ones.
func (a *allocator) truncate(comps []*component) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools = a.pools[:len(comps):len(comps)]
	a.takers = len(comps)
	a.holdLocked(comps)
}

// dropLast forgets the pool after those of comps, which was there for nothing.
func (a *allocator) dropLast(comps []*component) {
	a.lockSettled()
	defer a.mu.Unlock()
	if p := a.pools[len(comps)]; !p.closed() {
		a.free -= int64(p.free)
	}
	a.pools = a.pools[:len(comps):len(comps)]
	a.takers = len(comps)
	a.holdLocked(comps)
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
		if p.closed() {
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
	if p.closed() {
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
	if !p.closed() {
		a.free++
	}
}

// setBar stops allocation from a component for the reason b, or takes that reason
// away.
func (a *allocator) setBar(comp uint16, b bar, on bool) {
	a.lockSettled()
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
