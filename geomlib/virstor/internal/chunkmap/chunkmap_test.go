package chunkmap

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

func at(chunk uint32) alloc.Phys { return alloc.Phys{Comp: 1, Chunk: chunk} }

// What was stored run by run, chunk by chunk and before the map grew is what every
// reader finds, and nothing else is.
func TestTheMapHoldsWhatWasStored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 4 * PageEntries
		n := rapid.Uint64Range(1, most).Draw(t, "chunks")
		m, want := New(n), make(map[uint64]alloc.Phys)
		for p := uint64(0); (p+1)*PageEntries <= n; p++ {
			first, length := p*PageEntries, uint64(PageEntries)
			switch rapid.IntRange(0, 2).Draw(t, "page") {
			case 0:
				continue
			case 1:
				first += rapid.Uint64Range(0, PageEntries-1).Draw(t, "first")
				length = rapid.Uint64Range(1, (p+1)*PageEntries-first).Draw(t, "length")
			}
			m.SetRun(first, WordOf(at(uint32(first))), length)
			for i := range length {
				want[first+i] = at(uint32(first + i))
			}
		}
		n = rapid.Uint64Range(n, most).Draw(t, "grown")
		m.Resize(n)
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			vc := rapid.Uint64Range(0, n-1).Draw(t, "vc")
			if ph, ok := m.Lock(vc); ok {
				if ph != want[vc] {
					t.Fatalf("%d is locked at %v, want %v", vc, ph, want[vc])
				}
				m.Unlock(vc, 0)
				delete(want, vc)
			} else {
				want[vc] = alloc.Phys{Comp: 2, Chunk: uint32(vc)}
				m.Set(vc, want[vc])
			}
		}
		words := [PageEntries]Word{77} // of what was there before
		for page := range (n + PageEntries - 1) / PageEntries {
			allocated := false
			any := m.Page(page, &words)
			for i, w := range words {
				vc := page*PageEntries + uint64(i)
				if want := m.Load(vc).Mapping(); w != want {
					t.Fatalf("%d is %#x in its page, and %#x", vc, w, want)
				}
				allocated = allocated || w.Allocated()
			}
			if any != allocated {
				t.Fatalf("page %d has chunks: %t", page, any)
			}
		}
		next := m.NextAllocated(0, n)
		for vc := range n {
			ph, there := want[vc]
			w := m.Load(vc)
			if w.Allocated() != there || there && (w.Phys() != ph || w != WordOf(ph)) {
				t.Fatalf("%d is %#x, want %v, %t", vc, w, ph, there)
			}
			if there != (next == vc) {
				t.Fatalf("%d is allocated: %t; the next that is would be %d", vc, there, next)
			}
			if there {
				next = m.NextAllocated(vc+1, n)
			}
		}
		if next != n {
			t.Fatalf("the next after the last one is %d of %d", next, n)
		}
	})
}

// resumed counts how often it was resumed.
type resumed struct{ n atomic.Int32 }

func (r *resumed) Resume() { r.n.Add(1) }

func TestWhoIsParkedIsResumedOnceAndByHisOwnChunk(t *testing.T) {
	m := New(1000)
	m.Set(1, at(1))
	m.Set(65, at(65)) // of the same shard
	for _, vc := range []uint64{1, 65} {
		if _, ok := m.Lock(vc); !ok {
			t.Fatalf("%d is not there", vc)
		}
		if _, state := m.Pin(vc); state != Busy {
			t.Fatalf("%d can be pinned: %d", vc, state)
		}
	}
	var one, other resumed
	if !m.Park(1, &one, true) || !m.Park(65, &other, false) {
		t.Fatal("not parked")
	}
	m.Unlock(65, WordOf(at(66)))
	if one.n.Load() != 0 || other.n.Load() != 1 {
		t.Errorf("resumed %d and %d times", one.n.Load(), other.n.Load())
	}
	m.Unlock(1, 0)
	if one.n.Load() != 1 || other.n.Load() != 1 {
		t.Errorf("resumed %d and %d times", one.n.Load(), other.n.Load())
	}
	if m.Park(1, &one, false) {
		t.Error("parked on a chunk that is not busy")
	}
	if ph, ok := m.PinWait(65); !ok || ph != at(66) {
		t.Errorf("pinned %v, %t", ph, ok)
	}
	m.Unpin(65)
}

func TestAChunkThatIsShownIsReadAndNotWritten(t *testing.T) {
	m := New(10)
	m.Set(3, at(3))
	m.Lock(3)
	var reader, writer resumed
	if !m.Park(3, &reader, true) || !m.Park(3, &writer, false) {
		t.Fatal("not parked")
	}
	m.Show(3, WordOf(at(3)))
	if reader.n.Load() != 1 || writer.n.Load() != 1 {
		t.Errorf("resumed %d and %d times", reader.n.Load(), writer.n.Load())
	}
	if m.Park(3, &reader, true) || !m.Park(3, &writer, false) {
		t.Error("who reads is parked, or who writes is not")
	}
	if _, state := m.Pin(3); state != Busy {
		t.Errorf("pinned: %d", state)
	}
	if ph, state := m.PinRead(3); state != Pinned || ph != at(3) {
		t.Errorf("not to be read at %v: %d", ph, state)
	}
	done := make(chan struct{})
	go func() {
		m.Unlock(3, WordOf(at(4)))
		close(done)
	}()
	if _, state := m.TryLock(3); state != Busy {
		t.Errorf("locked: %d", state)
	}
	m.Unpin(3)
	<-done
	if m.Load(3) != WordOf(at(4)) {
		t.Errorf("%#x", m.Load(3))
	}
}

// Who has pinned a chunk finds the same place in the map until he lets it go, and
// who has locked it is alone.
func TestAPinnedChunkStaysWhereItIs(t *testing.T) {
	const chunks, rounds = 4, 2000
	m := New(chunks)
	var users [chunks]atomic.Int32
	for vc := range uint64(chunks) {
		m.Set(vc, at(uint32(vc)))
	}
	var all sync.WaitGroup
	for g := range uint64(3) {
		all.Go(func() {
			for i := range uint64(rounds) {
				vc := (i + g) % chunks
				ph, ok := m.PinWait(vc)
				if !ok {
					t.Errorf("%d is not there", vc)
					return
				}
				if n := users[vc].Add(1); n < 1 || m.Load(vc).Phys() != ph {
					t.Errorf("%d is used by %d, and at %v, not at %v", vc, n, m.Load(vc).Phys(), ph)
				}
				users[vc].Add(-1)
				m.Unpin(vc)
			}
		})
	}
	for g := range uint64(2) {
		all.Go(func() {
			for i := range uint64(rounds) {
				vc := (i + g) % chunks
				ph, _ := m.Lock(vc)
				if n := users[vc].Add(-100); n != -100 {
					t.Errorf("%d is used by others: %d", vc, n)
				}
				users[vc].Add(100)
				ph.Chunk++
				m.Unlock(vc, WordOf(ph))
			}
		})
	}
	all.Wait()
	sum := uint32(0)
	for vc := range uint64(chunks) {
		sum += m.Load(vc).Phys().Chunk - uint32(vc)
		if w := m.Load(vc); w != w.Mapping() {
			t.Errorf("%d is in use: %#x", vc, w)
		}
	}
	if sum != 2*rounds {
		t.Errorf("moved %d times, want %d", sum, 2*rounds)
	}
}
