package virstor

import (
	"sync"
	"sync/atomic"
	"time"
)

// barrier keeps requests out of something that cannot be done while they are in the
// middle of it. Those that come meanwhile wait without a worker. While it is open, who
// enters and leaves takes no lock.
type barrier struct {
	inside  atomic.Int64 // requests; shutBias is added while it is shut
	drained chan struct{}

	mu      sync.Mutex
	shut    bool
	waiting []*Request
}

// shutBias makes the counter of a shut barrier negative.
const shutBias = -1 << 62

func newBarrier() *barrier { return &barrier{drained: make(chan struct{}, 1)} }

// tryEnter is enter for one who does not wait.
func (b *barrier) tryEnter() bool {
	if b.inside.Add(1) > 0 {
		return true
	}
	b.leave()
	return false
}

// enter lets r in, or keeps it until the barrier is opened and reports false.
func (b *barrier) enter(r *Request) bool {
	if b.tryEnter() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		b.waiting = append(b.waiting, r)
		return false
	}
	b.inside.Add(1)
	return true
}

// leave ends what enter began.
func (b *barrier) leave() {
	if b.inside.Add(-1) == shutBias {
		b.signal()
	}
}

// signal tells close to look again.
func (b *barrier) signal() {
	select {
	case b.drained <- struct{}{}:
	default:
	}
}

// close returns when nobody is inside and nobody gets in.
func (b *barrier) close() { b.closeWithin(0) }

// closeWithin is close that gives up after the time limit, unless that is 0: it reports
// false then, and the barrier is to be opened all the same.
func (b *barrier) closeWithin(limit time.Duration) bool {
	b.mu.Lock()
	b.shut = true
	n := b.inside.Add(shutBias)
	b.mu.Unlock()
	if n == shutBias {
		return true
	}
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	for b.inside.Load() != shutBias {
		select {
		case <-b.drained: // or of a closing before this one
		case <-expired:
			return false
		}
	}
	return true
}

// open lets everybody in again. resume receives those that waited.
func (b *barrier) open(resume func(*Request)) {
	b.mu.Lock()
	ready := b.waiting
	b.shut, b.waiting = false, nil
	b.inside.Add(-shutBias)
	b.mu.Unlock()
	for _, r := range ready {
		resume(r)
	}
}
