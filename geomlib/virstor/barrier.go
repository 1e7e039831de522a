package virstor

import "sync"

// barrier keeps requests out of something that cannot be done while they are in the
// middle of it. Those that come meanwhile wait without a worker.
type barrier struct {
	mu      sync.Mutex
	empty   sync.Cond // inside became 0
	inside  int
	shut    bool
	waiting []*Request
}

// enter lets r in, or keeps it until the barrier is opened and reports false.
func (b *barrier) enter(r *Request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		b.waiting = append(b.waiting, r)
		return false
	}
	b.inside++
	return true
}

// leave ends what enter began.
func (b *barrier) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inside--; b.inside == 0 {
		b.empty.Broadcast()
	}
}

// close returns when nobody is inside and nobody gets in.
func (b *barrier) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
	for b.inside > 0 {
		b.empty.Wait()
	}
}

// open lets everybody in again. resume receives those that waited.
func (b *barrier) open(resume func(*Request)) {
	b.mu.Lock()
	ready := b.waiting
	b.shut, b.waiting = false, nil
	b.mu.Unlock()
	for _, r := range ready {
		resume(r)
	}
}
