package virstor

import "sync"

// gate keeps requests out of something that cannot be done while they are in the
// middle of it. Those that come meanwhile wait without a worker.
type gate struct {
	mu      sync.Mutex
	empty   sync.Cond // inside became 0
	inside  int
	shut    bool
	waiting []*Request
}

// enter lets r in, or keeps it until the gate is opened and reports false.
func (g *gate) enter(r *Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		g.waiting = append(g.waiting, r)
		return false
	}
	g.inside++
	return true
}

// leave ends what enter began.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 {
		g.empty.Broadcast()
	}
}

// close returns when nobody is inside and nobody gets in.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for g.inside > 0 {
		g.empty.Wait()
	}
}

// open lets everybody in again. resume receives those that waited.
func (g *gate) open(resume func(*Request)) {
	g.mu.Lock()
	ready := g.waiting
	g.shut, g.waiting = false, nil
	g.mu.Unlock()
	for _, r := range ready {
		resume(r)
	}
}
