package nbd

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// TestNoMoreIsMappedThanWasInUse takes and gives buffers of all classes: what is
// mapped stays within what was in use at one time and one buffer more, no two
// buffers share memory, and what nobody needs goes back.
func TestNoMoreIsMappedThanWasInUse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var pool mappedPool
		defer pool.close()
		var used []*buffer
		var inUse, most int64
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			if len(used) > 0 && rapid.Bool().Draw(rt, "give") {
				i := rapid.IntRange(0, len(used)-1).Draw(rt, "which")
				b := used[i]
				used[i] = used[len(used)-1]
				used = used[:len(used)-1]
				if b.mem[0] != byte(b.class) || b.mem[len(b.mem)-1] != byte(b.class) {
					rt.Fatal("a buffer in use was changed")
				}
				inUse -= int64(len(b.mem))
				pool.put(b)
				continue
			}
			b := pool.get(rapid.IntRange(mappedClass, maxClass).Draw(rt, "class"))
			b.mem[0], b.mem[len(b.mem)-1] = byte(b.class), byte(b.class)
			used = append(used, b)
			inUse += int64(len(b.mem))
			most = max(most, inUse)
			if got, want := pool.mapped.Load(), max(keepMapped, most+maxPayload); got > want || got < inUse {
				rt.Fatalf("%d bytes are mapped, %d are in use, %d were at most", got, inUse, most)
			}
		}
		for _, b := range used {
			pool.put(b)
		}
		pool.trim() // they were needed just now
		pool.trim()
		if n := pool.mapped.Load(); n != 0 {
			rt.Fatalf("%d bytes stay mapped that nobody needs", n)
		}
	})
}

func TestBuffersThatComeBackLateAreUnmapped(t *testing.T) {
	var pool mappedPool
	early, late := pool.get(mappedClass), pool.get(maxClass)
	pool.put(early)
	pool.close()
	if n := pool.mapped.Load(); n != maxPayload {
		t.Errorf("%d bytes are mapped, not the %d in use", n, maxPayload)
	}
	pool.put(late)
	if n := pool.mapped.Load(); n != 0 {
		t.Errorf("%d bytes stay mapped", n)
	}
}

// TestABufferIsOnesAlone has many take and give at once, and trims beside them.
func TestABufferIsOnesAlone(t *testing.T) {
	var pool mappedPool
	defer pool.close()
	var all sync.WaitGroup
	var wrong atomic.Int64
	for g := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 2000 {
				b := pool.get(mappedClass + rng.IntN(3))
				b.mem[7] = byte(g)
				if rng.IntN(50) == 0 {
					pool.trim()
				}
				if b.mem[7] != byte(g) {
					wrong.Add(1)
				}
				pool.put(b)
			}
		})
	}
	all.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d buffers were two's", n)
	}
}
