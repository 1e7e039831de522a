package gatetest

import (
	"strconv"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

const (
	maxQueueSize = 4096            // G_GATE_MAX_QUEUE_SIZE
	guardAge     = 5 * time.Second // g_gate_guard's, whatever the timeout
)

func autoName(number int) string { return "ggate" + strconv.Itoa(number) }

// unit is struct g_gate_softc and its provider.
type unit struct {
	k       *Kernel
	number  int
	name    string
	flags   gate.Flags
	limit   int           // maxcount, 0 for none
	timeout time.Duration // period of the guard, 0 for none

	// Under k.mu.
	ref        int
	mediaSize  int64
	sectorSize int // never changes
	readers    int
	writers    int
	info       string
	dying      bool

	mu       sync.Mutex
	wakeup   sync.Cond
	in, out  queue
	count    int // of both queues
	seq      uint64
	destroy  bool
	guard    *time.Timer
	sleepers []*sleeper
}

// sleeper is a thread in START without a request.
type sleeper struct {
	signalled bool
	asleep    bool
}

// signalledLocked makes s's START end; u.mu is held.
func (s *sleeper) signalledLocked(u *unit) {
	if !s.asleep || s.signalled {
		return
	}
	s.signalled = true
	u.forgetLocked(s)
	u.wakeup.Broadcast()
}

func (u *unit) forgetLocked(s *sleeper) {
	for i, other := range u.sleepers {
		if other == s {
			u.sleepers = append(u.sleepers[:i], u.sleepers[i+1:]...)
			return
		}
	}
}

// enqueue is g_gate_queue_io.
func (u *unit) enqueue(c *Call) {
	u.mu.Lock()
	if u.destroy {
		u.mu.Unlock()
		c.deliver(gate.ENXIO)
		return
	}
	if u.limit > 0 && u.count > u.limit {
		u.mu.Unlock()
		c.deliver(gate.ENOMEM)
		return
	}
	c.seq = u.seq
	u.seq++
	u.count++
	u.in.pushBack(c)
	u.wakeup.Broadcast()
	u.mu.Unlock()
}

// start waits for the first request of the in-queue. take is called with u.mu
// held and answers whether the request can be taken.
func (u *unit) start(s *sleeper, take func(c *Call) bool) (c *Call, errno, ctlError gate.Errno) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.in.first == nil {
		if u.destroy {
			return nil, 0, gate.ECANCELED
		}
		s.asleep, s.signalled = true, false
		u.sleepers = append(u.sleepers, s)
		u.wakeup.Wait()
		u.forgetLocked(s)
		s.asleep = false
		if s.signalled {
			if u.k.opts.SignalCancels {
				return nil, 0, gate.ECANCELED
			}
			return nil, gate.EINTR, 0
		}
	}
	c = u.in.first
	if !take(c) {
		return c, 0, gate.ENOMEM
	}
	u.in.remove(c)
	u.out.pushBack(c)
	return c, 0, 0
}

// untake puts back what could not be copied out.
func (u *unit) untake(c *Call) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.remove(c)
	u.in.pushFront(c)
}

// answer takes the request seq off the out-queue, or back to the in-queue
// (EAGAIN). It returns nil when nothing is to be delivered.
func (u *unit) answer(seq uint64, ctlError gate.Errno) *Call {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := u.out.first; c != nil; c = c.next {
		if c.seq != seq {
			continue
		}
		u.out.remove(c)
		if ctlError == gate.EAGAIN {
			u.in.pushFront(c)
			u.wakeup.Broadcast()
			return nil
		}
		u.count--
		return c
	}
	return nil
}

// cancel puts what was taken back, in order, ahead of all that was not. Nobody
// is woken.
func (u *unit) cancel(seq uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var last, next *Call
	for c := u.out.first; c != nil; c = next {
		next = c.next
		if seq != 0 && c.seq != seq {
			continue
		}
		u.out.remove(c)
		u.in.insertAfter(last, c)
		last = c
		if seq != 0 {
			return
		}
	}
}

// kill is the middle of g_gate_destroy: all requests fail, all STARTs end.
func (u *unit) kill() {
	u.mu.Lock()
	u.destroy = true
	u.wakeup.Broadcast()
	if u.guard != nil {
		u.guard.Stop()
	}
	var dead []*Call
	for _, q := range []*queue{&u.in, &u.out} {
		for q.first != nil {
			c := q.first
			q.remove(c)
			u.count--
			dead = append(dead, c)
		}
	}
	u.mu.Unlock()
	for _, c := range dead {
		c.deliver(gate.ENXIO)
	}
}

// guardScan is g_gate_guard: what is older than five seconds fails, also
// while it is being served.
func (u *unit) guardScan() {
	u.mu.Lock()
	var old []*Call
	var next *Call
	for _, q := range []*queue{&u.in, &u.out} {
		for c := q.first; c != nil; c = next {
			next = c.next
			if time.Since(c.born) < guardAge {
				continue
			}
			q.remove(c)
			u.count--
			old = append(old, c)
		}
	}
	if !u.destroy {
		u.guard.Reset(u.timeout)
	}
	u.mu.Unlock()
	for _, c := range old {
		c.deliver(gate.EIO)
	}
}

// queue is a bio_queue: a list through the calls.
type queue struct {
	first, last *Call
	len         int
}

func (q *queue) pushBack(c *Call)  { q.insertAfter(q.last, c) }
func (q *queue) pushFront(c *Call) { q.insertAfter(nil, c) }

// insertAfter puts c behind at, or in front of all when at is nil.
func (q *queue) insertAfter(at, c *Call) {
	c.prev, c.next = at, q.first
	if at != nil {
		c.next = at.next
		at.next = c
	} else {
		q.first = c
	}
	if c.next != nil {
		c.next.prev = c
	} else {
		q.last = c
	}
	q.len++
}

func (q *queue) remove(c *Call) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.last = c.prev
	}
	c.prev, c.next = nil, nil
	q.len--
}
