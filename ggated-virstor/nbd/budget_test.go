package nbd

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// TestBudgetServesInOrder compares a budget with a queue.
func TestBudgetServesInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const total = 100
		b := newBudget(total)
		type claim struct {
			w *waiter
			n int64
		}
		var queue, held []claim
		free := int64(total)
		serve := func() {
			for len(queue) > 0 && queue[0].n <= free {
				select {
				case <-queue[0].w.ready:
				default:
					t.Fatalf("%d bytes are free and the first in the queue, who needs %d, waits", free, queue[0].n)
				}
				free -= queue[0].n
				held, queue = append(held, queue[0]), queue[1:]
			}
			for _, c := range queue {
				if len(c.w.ready) != 0 {
					t.Fatalf("served out of turn")
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := rapid.Int64Range(1, total).Draw(t, "n")
				c := claim{&waiter{ready: make(chan struct{}, 1)}, n}
				want := len(queue) == 0 && n <= free
				if got := b.take(n); got != want {
					t.Fatalf("take %d of %d with %d in the queue: %v", n, free, len(queue), got)
				}
				if want {
					free -= n
					held = append(held, c)
					return
				}
				b.enqueue(c.w, n)
				queue = append(queue, c)
			},
			"give": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				free += held[i].n
				b.give(held[i].n)
				held = append(held[:i], held[i+1:]...)
			},
			"cancel": func(t *rapid.T) {
				if len(queue) == 0 {
					t.Skip("nobody waits")
				}
				i := rapid.IntRange(0, len(queue)-1).Draw(t, "i")
				b.cancel(queue[i].w)
				queue = append(queue[:i:i], queue[i+1:]...)
			},
			"": func(*rapid.T) { serve() },
		})
	})
}

func TestBudgetUnderContention(t *testing.T) {
	const total, workers = 10, 8
	b := newBudget(total)
	var used atomic.Int64
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			w := &waiter{ready: make(chan struct{}, 1)}
			for j := range 2000 {
				n := int64((i+j)%total + 1)
				if !b.take(n) {
					b.enqueue(w, n)
					if j%7 == 0 {
						b.cancel(w)
						continue
					}
					<-w.ready
				}
				if used.Add(n) > total {
					t.Error("more was taken than there is")
				}
				used.Add(-n)
				b.give(n)
			}
		})
	}
	all.Wait()
	if b.free.Load() != total || b.waiting.Load() != 0 || b.first != nil || b.last != nil {
		t.Errorf("in the end: %d free, %d waiting", b.free.Load(), b.waiting.Load())
	}
}

func TestBuffersAreAlignedAndLargeEnough(t *testing.T) {
	var pool bufferPool
	for _, n := range []int{1, 511, 4096, 4097, 65536, 1<<20 + 1, maxPayload - 1, maxPayload} {
		b := pool.get(n)
		if len(b.mem) < n || int64(len(b.mem)) != bufferSize(n) {
			t.Errorf("%d bytes: a buffer of %d, charged as %d", n, len(b.mem), bufferSize(n))
		}
		if misalignment(b.mem) != 0 {
			t.Errorf("%d bytes: not aligned", n)
		}
		pool.put(b)
	}
}
