package alloc

// ClaimBelow claims the free chunks of comp below n, which are kept to become reserved
// ones, and returns how many below n are in use otherwise.
func (a *Allocator[C]) ClaimBelow(comp uint16, n uint32) (used int) {
	a.lockToTake()
	defer a.mu.Unlock()
	p := a.pools[comp]
	if p.kept == nil {
		p.kept = make(map[uint32]bool)
	}
	for c := p.first; c < n; c++ {
		if p.kept[c] {
			continue
		}
		if p.Claim(c) {
			p.kept[c] = true
			if !p.closed() {
				a.free--
			}
			continue
		}
		used++
	}
	return used
}

// ReleaseKept undoes ClaimBelow.
func (a *Allocator[C]) ReleaseKept(comp uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[comp]
	for c := range p.kept {
		p.release(c)
		if !p.closed() {
			a.free++
		}
	}
	p.kept = nil
}

// SwapZero gives index 0 the pool of comp without the chunks that are reserved now, comp
// that of the last component, and forgets that of the former component 0.
func (a *Allocator[C]) SwapZero(comps []C, comp uint16, reserved uint32) {
	a.lockToTake()
	defer a.mu.Unlock()
	p, last := a.pools[comp], len(a.pools)-1
	p.total -= reserved
	p.first = reserved
	p.kept = nil
	if !a.pools[0].closed() {
		a.free -= int64(a.pools[0].free)
	}
	a.pools[comp] = a.pools[last]
	a.pools[0] = p
	a.pools = a.pools[:last]
	a.takers = last
	a.holdLocked(comps)
}

// ReserveKept makes the kept chunks of component 0, which has old reserved ones, reserved.
func (a *Allocator[C]) ReserveKept(old, reserved uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[0]
	p.total -= reserved - old
	p.first = reserved
	p.kept = nil
}
