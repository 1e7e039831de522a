package chunkmap

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// was is a Frozen and what it has to hold.
type was struct {
	f    *Frozen
	want map[uint64]alloc.Phys
}

func (w was) mustHold(t *rapid.T, n uint64) {
	var words [PageEntries]Word
	for page := range w.f.Pages() {
		if any := w.f.Page(page, &words); any != slices.ContainsFunc(words[:], Word.Allocated) {
			t.Fatalf("page %d: %t", page, any)
		}
		for i, word := range words {
			vc := page*PageEntries + uint64(i)
			ph, there := w.want[vc]
			if got := w.f.Load(vc); got != word || word.Allocated() != there || there && word != WordOf(ph) {
				t.Fatalf("%d is %#x, and %#x of its page; want %v, %t", vc, got, word, ph, there)
			}
		}
	}
}

// mustCount counts what each Frozen names, one mapping after the other.
func mustCount(t *rapid.T, m *Map, frozen []was, now map[uint64]alloc.Phys, n uint64) {
	got := make(map[*Frozen]*Sizes)
	for _, w := range frozen {
		got[w.f] = new(Sizes)
	}
	for page := range n / PageEntries {
		m.AddSizes(page, func(f *Frozen) *Sizes { return got[f] })
	}
	owners := make(map[alloc.Phys]int)
	for _, names := range append(frozen, was{want: now}) {
		for _, ph := range names.want {
			owners[ph]++
		}
	}
	for i, w := range frozen {
		want := Sizes{Named: uint64(len(w.want))}
		lost, alone := 0, 0
		for vc := range n {
			then, was := w.want[vc]
			ph, is := now[vc]
			if was && owners[then] == 1 {
				want.Alone++
			}
			if was == is && then == ph {
				continue
			}
			want.Since++
			if lost++; is && owners[ph] == 1 {
				alone++
			}
		}
		if *got[w.f] != want {
			t.Fatalf("frozen %d of %d: %+v, want %+v", i, len(frozen), *got[w.f], want)
		}
		for page := range n / PageEntries {
			d, a := w.f.Lost(page)
			lost, alone = lost-d, alone-a
		}
		if lost != 0 || alone != 0 {
			t.Fatalf("frozen %d of %d: %d mappings that differ were not told, %d that nothing else has", i, len(frozen), lost, alone)
		}
	}
}

// Whatever becomes of the map and of others, a Frozen holds what the map was; a chunk that
// it names is shared until the map has another; and what only one names is given once,
// when that leaves.
func TestAFrozenHoldsWhatTheMapWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 3 * PageEntries
		m, now := New(n), make(map[uint64]alloc.Phys)
		next := uint32(0)
		fresh := func() alloc.Phys { next++; return alloc.Phys{Comp: 3, Chunk: next} }
		if rapid.Bool().Draw(t, "in order") {
			m.SetRun(PageEntries, WordOf(at(0)), PageEntries)
			for i := range uint64(PageEntries) {
				now[PageEntries+i] = at(uint32(i))
			}
		}
		var frozen []was // the oldest first
		for range rapid.IntRange(0, 3).Draw(t, "from before") {
			w := was{m.Before(), maps.Clone(now)}
			if len(frozen) > 0 {
				w.want = maps.Clone(frozen[0].want)
			}
			for page := range uint64(n / PageEntries) {
				var words [PageEntries]Word
				for i := range words {
					vc := page*PageEntries + uint64(i)
					if vc%97 == uint64(len(frozen)) {
						w.want[vc] = fresh()
					} else if vc%97 == 50 {
						delete(w.want, vc)
					}
					if ph, ok := w.want[vc]; ok {
						words[i] = WordOf(ph)
					}
				}
				w.f.SetPage(page, &words)
			}
			frozen = slices.Insert(frozen, 0, w)
		}
		named := func(vc uint64, ph alloc.Phys) bool {
			return slices.ContainsFunc(frozen, func(w was) bool { got, ok := w.want[vc]; return ok && got == ph })
		}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			vc := rapid.SampledFrom([]uint64{0, 1, 97, 511, 512, 700, 1023, 1024, 1100, 1535}).Draw(t, "vc")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				frozen = append(frozen, was{m.Freeze(), maps.Clone(now)})
			case 1:
				if len(frozen) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(frozen)-1).Draw(t, "which")
				gone := frozen[i]
				frozen = slices.Delete(frozen, i, i+1)
				given := make(map[uint64]alloc.Phys)
				for gone.f.Leave(func(vc uint64, w Word) { given[vc] = w.Phys() }) {
				}
				gone.f.Remove()
				for vc, ph := range gone.want {
					ours := named(vc, ph) || now[vc] == ph
					if _, ok := given[vc]; ok == ours {
						t.Fatalf("%d was given: %t, another names it: %t", vc, ok, ours)
					}
				}
			case 2: // write
				ph, state := m.PinWrite(vc)
				mine, there := now[vc]
				switch {
				case !there && state == Unallocated:
					now[vc] = fresh()
					m.Set(vc, now[vc])
				case there && state == Pinned && ph == mine && !named(vc, mine):
					m.Unpin(vc)
				case there && state == Shared && m.IsNamed(vc, WordOf(mine)) != named(vc, mine):
					t.Fatalf("%d is named: %t", vc, !named(vc, mine))
				case there && state == Shared && !named(vc, mine):
					m.Unshare(vc)
				case there && state == Shared: // copy
					if ph, ok := m.Lock(vc); !ok || ph != mine {
						t.Fatalf("%d is locked at %v, %t", vc, ph, ok)
					}
					m.Show(vc, WordOf(mine))
					now[vc] = fresh()
					m.Unlock(vc, WordOf(now[vc]))
				default:
					t.Fatalf("%d, which is at %v, %t, is %d at %v; named: %t", vc, mine, there, state, ph, named(vc, mine))
				}
			case 3: // discard
				if ph, ok := m.Lock(vc); ok {
					m.Unlock(vc, 0)
					if now[vc] != ph {
						t.Fatalf("%d was at %v, want %v", vc, ph, now[vc])
					}
					delete(now, vc)
				}
			case 4: // locked and left as it was: still shared if it was
				if ph, ok := m.Lock(vc); ok {
					m.Unlock(vc, WordOf(ph))
				}
			}
		}
		for _, w := range frozen {
			w.mustHold(t, n)
		}
		mustCount(t, m, frozen, now, n)
		was{m.Freeze(), now}.mustHold(t, n)
	})
}

func TestAFrozenIsReadWhileTheMapChanges(t *testing.T) {
	const n = 2 * PageEntries
	m := New(n)
	for vc := range uint64(n) {
		m.Set(vc, at(uint32(vc)))
	}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	read := func(f *Frozen, gen uint32) {
		defer readers.Done()
		var words [PageEntries]Word
		for {
			for page := range f.Pages() {
				f.Page(page, &words)
				for i, w := range words {
					vc := page*PageEntries + uint64(i)
					if want := uint32(vc) + gen*n; w.Phys().Chunk != want || f.Load(vc) != w {
						t.Errorf("generation %d: %d is at %v, want %d", gen, vc, w.Phys(), want)
						return
					}
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}
	var removed *Frozen
	for gen := range uint32(4) {
		f := m.Freeze()
		if gen == 1 {
			removed = f
		} else {
			readers.Add(1)
			go read(f, gen)
		}
		for vc := range uint64(n) {
			m.Lock(vc)
			m.Unlock(vc, WordOf(at(uint32(vc)+(gen+1)*n)))
		}
		if gen == 2 {
			for removed.Leave(func(uint64, Word) {}) {
			}
			removed.Remove()
		}
	}
	close(stop)
	readers.Wait()
}

// The newer one, whose page the older one has by it, goes just after a reader of the older
// one has seen that this has none itself.
func TestAFrozenIsReadWhileANewerOneGoes(t *testing.T) {
	m := New(PageEntries)
	oldest, middle := m.Freeze(), m.Freeze()
	m.Set(0, at(1))
	newest := m.Freeze()
	if p, newer := oldest.behind(0); p != nil || newer != middle {
		t.Fatalf("the page comes from %p, behind it is %p; want none, and %p", p, newer, middle)
	}
	middle.Remove()
	if p, newer := oldest.behind(0); p == nil || p[0] != 0 {
		t.Errorf("the page comes from %p, behind it is %p, which is the newest: %t", p, newer, newer == newest)
	}
	if w := oldest.Load(0); w != 0 {
		t.Errorf("what was not allocated is read as %x", w)
	}
}

// memoryOfSnapshots makes a map of n chunks, all of which are allocated, in no order, and
// freezes it a hundred times, each time after another hundredth of it was changed. It tells what
// the map takes, and what all that is frozen takes beside it, in bytes.
func memoryOfSnapshots(n uint64) (once, hundred int64) {
	const times = 100
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	m := New(n)
	for vc := range n {
		m.SetRun(vc, WordOf(alloc.Phys{Comp: uint16(vc % 3), Chunk: uint32(vc)}), 1)
	}
	once = heap() - before
	for i := range uint64(times) {
		m.Freeze()
		for vc := i * n / times; vc < (i+1)*n/times; vc++ {
			if _, ok := m.Lock(vc); ok {
				m.Unlock(vc, WordOf(alloc.Phys{Comp: uint16(vc % 3), Chunk: uint32(n + vc)}))
			}
		}
	}
	hundred = heap() - before - once
	runtime.KeepAlive(m)
	return once, hundred
}

func TestAHundredSnapshotsTakeTwoMapsAtMost(t *testing.T) {
	once, hundred := memoryOfSnapshots(1 << 20)
	t.Logf("a map takes %d bytes, a hundred snapshots of it with a hundredth changed between %d, %.2f of it", once, hundred, float64(hundred)/float64(once))
	if hundred > 2*once {
		t.Error("more than two maps")
	}
	if hundred < once/2 {
		t.Error("they are not there")
	}
}

// BenchmarkMemoryOfAHundredSnapshots of a volume of 64 TiB.
func BenchmarkMemoryOfAHundredSnapshots(b *testing.B) {
	for b.Loop() {
		once, hundred := memoryOfSnapshots(16 << 20)
		b.ReportMetric(float64(once)/(1<<20), "map-MiB")
		b.ReportMetric(float64(hundred)/(1<<20), "snapshots-MiB")
		b.ReportMetric(float64(hundred)/float64(once), "maps")
	}
}
