package nbd

import (
	"sync"
	"sync/atomic"
)

// budget bounds the memory that several connections use together. Taking and
// giving back are atomic operations; only who has to wait takes the lock. Who
// waits longest is served first, so that a large request is not starved by
// small ones.
type budget struct {
	free    atomic.Int64
	waiting atomic.Int64 // number of waiters, changed under mu

	mu    sync.Mutex
	first *waiter // in order of arrival
	last  *waiter
}

// waiter is a connection's place in the queue of a budget. Its ready channel
// has room for one.
type waiter struct {
	ready chan struct{}
	need  int64
	next  *waiter
}

func newBudget(n int64) *budget {
	b := new(budget)
	b.free.Store(n)
	return b
}

// take takes n bytes if they are there and nobody waits.
func (b *budget) take(n int64) bool {
	return b.waiting.Load() == 0 && b.subtract(n)
}

func (b *budget) subtract(n int64) bool {
	for {
		free := b.free.Load()
		if free < n {
			return false
		}
		if b.free.CompareAndSwap(free, free-n) {
			return true
		}
	}
}

// enqueue queues w for n bytes; w.ready receives when they are w's.
func (b *budget) enqueue(w *waiter, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.need, w.next = n, nil
	if b.last == nil {
		b.first = w
	} else {
		b.last.next = w
	}
	b.last = w
	b.waiting.Add(1)
	b.grantLocked() // bytes may have come back before the waiter was visible
}

// give gives n bytes back.
func (b *budget) give(n int64) {
	b.free.Add(n)
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grantLocked()
}

// grantLocked serves waiters in order. The caller holds b.mu.
func (b *budget) grantLocked() {
	for b.first != nil && b.subtract(b.first.need) {
		w := b.first
		b.first = w.next
		if b.first == nil {
			b.last = nil
		}
		b.waiting.Add(-1)
		w.ready <- struct{}{}
	}
}

// cancel takes w out of the queue. If it was served meanwhile, the bytes go
// back.
func (b *budget) cancel(w *waiter) {
	if b.remove(w) {
		return
	}
	<-w.ready
	b.give(w.need)
}

func (b *budget) remove(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var before *waiter
	for at := b.first; at != nil; before, at = at, at.next {
		if at != w {
			continue
		}
		if before == nil {
			b.first = w.next
		} else {
			before.next = w.next
		}
		if b.last == w {
			b.last = before
		}
		b.waiting.Add(-1)
		b.grantLocked() // w may have been what the others waited behind
		return true
	}
	return false
}

// quota is what one connection may use for one direction: a reserve of its own,
// so that small requests go on whatever others do, and beyond it a part of a
// shared budget. Only the connection's reader takes; anyone gives back.
type quota struct {
	reserve atomic.Int64 // left of the connection's own
	left    atomic.Int64 // that the connection may still take from shared
	limit   int64        // of left
	fair    bool         // see short
	shared  *budget
}

func (q *quota) init(reserve, limit int64, shared *budget) {
	q.reserve.Store(reserve)
	q.left.Store(limit)
	q.limit, q.shared = limit, shared
}

// used is what the connection has taken, bytes.
func (q *quota) used() int64 {
	return connReserve - q.reserve.Load() + q.limit - q.left.Load()
}

// short says whether the connection has to wait for its own requests before it
// takes n bytes of shared. A fair quota that has some already leaves as much
// as it has: so one whose peer does not read what it asked for gets half at
// most, two get a third each, and there is always something for the next.
func (q *quota) short(n int64) bool {
	left := q.left.Load()
	if left < n {
		return true
	}
	used := q.limit - left
	return q.fair && used > 0 && used+n > q.shared.free.Load()
}

// takeReserve takes n bytes of the connection's own if they are there.
func (q *quota) takeReserve(n int64) bool {
	if q.reserve.Load() < n {
		return false
	}
	q.reserve.Add(-n) // the reader alone takes: it can only have grown
	return true
}

// give gives back n bytes that came from the reserve or from shared.
func (q *quota) give(n int64, reserve bool) {
	if reserve {
		q.reserve.Add(n)
		return
	}
	q.left.Add(n)
	q.shared.give(n)
}

// charge gets r.op.Length bytes of memory for r.op.Data, waiting until the
// connection and the server have them.
func (c *conn) charge(r *request, p *quota) error {
	n := bufferSize(int(r.op.Length))
	switch {
	case p.takeReserve(n):
		r.reserve = true
	default:
		if err := c.chargeShared(p, n); err != nil {
			c.outstanding.Add(-1)
			return err
		}
		r.reserve = false
	}
	r.size = n
	r.buf = c.srv.pool.get(int(r.op.Length))
	r.op.Data = r.buf.mem[:r.op.Length]
	return nil
}

func (c *conn) chargeShared(p *quota, n int64) error {
	err := c.awaitWhile(func() (<-chan struct{}, bool) { return nil, p.short(n) })
	if err != nil {
		return err
	}
	p.left.Add(-n)
	if p.shared.take(n) {
		return nil
	}
	p.shared.enqueue(&c.queued, n)
	for {
		granted, err := c.await(c.queued.ready)
		switch {
		case err != nil:
			p.shared.cancel(&c.queued)
			p.left.Add(n)
			return err
		case granted:
			return nil
		}
	}
}
