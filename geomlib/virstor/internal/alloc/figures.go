package alloc

// Figure is what a component has to give, at one moment for all, in chunks.
type Figure[C any] struct {
	Owner       C
	Total, Free uint32
}

// Figures are those of all components, by index.
func (a *Allocator[C]) Figures() []Figure[C] {
	a.mu.Lock()
	defer a.mu.Unlock()
	fs := make([]Figure[C], len(a.holdings))
	for i, h := range a.holdings {
		fs[i] = Figure[C]{h.owner, h.pool.total, h.pool.free}
	}
	return fs
}

// Len is the number of components that have a pool.
func (a *Allocator[C]) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pools)
}

// Used is the number of chunks of a component that are taken.
func (a *Allocator[C]) Used(comp uint16) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pools[comp].total - a.pools[comp].free
}

// Reserve is what SetReserve set, in chunks.
func (a *Allocator[C]) Reserve() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reserve
}

// Available is what ordinary takers may take, in chunks, never negative.
func (a *Allocator[C]) Available() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(0, a.free-a.reserve)
}

// IsFree reports whether a chunk is free.
func (a *Allocator[C]) IsFree(c Phys) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pools[c.Comp].isFree(c.Chunk)
}

// Bars are the reasons why nothing is taken from a component, and Kept is how many of its
// chunks ClaimBelow has claimed.
func (a *Allocator[C]) Bars(comp uint16) (bars Bar, kept int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pools[comp].bars, len(a.pools[comp].kept)
}

// Dense reports whether the used chunks of comp are the lowest ones, and the first free
// chunk (first when nothing is used).
func (a *Allocator[C]) Dense(comp int, first uint32) (next uint32, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[comp]
	next = first + p.total - p.free
	for c := first; c < next; c++ {
		if p.isFree(c) {
			return next, false
		}
	}
	return next, true
}
