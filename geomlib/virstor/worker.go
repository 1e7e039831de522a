package virstor

import "sync"

// job is what a worker does.
type job interface{ perform() }

// workers is a fixed number of goroutines that do what may wait for a device.
type workers struct {
	mu     sync.Mutex
	cond   sync.Cond
	ring   []job // queue of len(ring) slots, n used from head
	head   int
	n      int
	idle   int
	closed bool

	wg sync.WaitGroup
}

func startWorkers(count int) *workers {
	w := &workers{ring: make([]job, 256)}
	w.cond.L = &w.mu
	for range count {
		w.wg.Go(w.loop)
	}
	return w
}

// put queues j. The queue grows with what is in flight and is kept.
func (w *workers) put(j job) {
	w.mu.Lock()
	if w.n == len(w.ring) {
		bigger := make([]job, 2*len(w.ring))
		k := copy(bigger, w.ring[w.head:])
		copy(bigger[k:], w.ring[:w.head])
		w.ring, w.head = bigger, 0
	}
	w.ring[(w.head+w.n)%len(w.ring)] = j
	w.n++
	wake := w.idle > 0
	w.mu.Unlock()
	if wake {
		w.cond.Signal()
	}
}

func (w *workers) loop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.n == 0 {
			if w.closed {
				return
			}
			w.idle++
			w.cond.Wait()
			w.idle--
		}
		j := w.takeLocked()
		w.mu.Unlock()
		j.perform()
		w.mu.Lock()
	}
}

// takeLocked takes the first job; there is one, and w.mu is held.
func (w *workers) takeLocked() job {
	j := w.ring[w.head]
	w.ring[w.head] = nil
	w.head = (w.head + 1) % len(w.ring)
	w.n--
	return j
}

// stop ends the workers when the queue is empty.
func (w *workers) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cond.Broadcast()
	w.wg.Wait()
}
