package alloc

import (
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is what an allocator must agree with: the chunks that are taken, and the bars of
// the components.
type model struct {
	a     *Allocator[string]
	names []string
	size  []uint32
	taken map[Phys]bool
	bars  []Bar
}

const firstChunk = 2 // of every component

// free is how many chunks of the components that are open are free.
func (m *model) free() (n int64) {
	for i, size := range m.size {
		if m.bars[i] == 0 {
			n += int64(size)
		}
	}
	for p := range m.taken {
		if m.bars[p.Comp] == 0 {
			n--
		}
	}
	return n
}

func (m *model) add(t *rapid.T) {
	n := rapid.Uint32Range(0, 200).Draw(t, "chunks")
	m.names = append(m.names, string(rune('a'+len(m.names))))
	m.size, m.bars = append(m.size, n), append(m.bars, 0)
	m.a.Append(NewPool(firstChunk, firstChunk+n))
	m.a.Hold(m.names)
}

// note takes p for a chunk that was given out.
func (m *model) note(t *rapid.T, p Phys) {
	if m.taken[p] || m.bars[p.Comp] != 0 || p.Chunk < firstChunk || p.Chunk >= firstChunk+m.size[p.Comp] {
		t.Fatalf("%v was given out; taken: %t, bars of its component: %b", p, m.taken[p], m.bars[p.Comp])
	}
	for c := uint32(firstChunk); c < p.Chunk; c++ {
		if !m.taken[Phys{p.Comp, c}] {
			t.Fatalf("%v was given out, and chunk %d is free", p, c)
		}
	}
	m.taken[p] = true
}

func (m *model) comp(t *rapid.T) uint16 {
	return uint16(rapid.IntRange(0, len(m.names)-1).Draw(t, "component"))
}

func TestWhatIsGivenOutWasFreeAndIsTheLowest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reserve := rapid.Int64Range(0, 20).Draw(t, "reserve")
		m := &model{a: New[string](rapid.Bool().Draw(t, "spread"), reserve), taken: make(map[Phys]bool)}
		m.add(t)
		t.Repeat(map[string]func(*rapid.T){
			"": m.agrees,
			"add": func(t *rapid.T) {
				if len(m.names) < 5 {
					m.add(t)
				}
			},
			"take": func(t *rapid.T) {
				n, all := rapid.IntRange(1, 60).Draw(t, "n"), rapid.Bool().Draw(t, "all")
				room := m.free()
				if !all {
					room -= reserve
				}
				grants, ok := m.a.Take(nil, n, all)
				if ok != (int64(n) <= room) || ok && len(grants) != n || !ok && grants != nil {
					t.Fatalf("%d of %d: %t, %d grants", n, room, ok, len(grants))
				}
				for _, g := range grants {
					m.note(t, g.At)
				}
			},
			"take from": func(t *rapid.T) {
				c := m.comp(t)
				if p, ok := m.a.TakeFrom(c); ok {
					if p.Comp != c {
						t.Fatalf("%v is not of component %d", p, c)
					}
					m.note(t, p)
				}
			},
			"take first": func(t *rapid.T) {
				p, ok := m.a.TakeFirst()
				if ok != (m.free() > 0) {
					t.Fatalf("%d are free: %t", m.free(), ok)
				}
				if ok {
					m.note(t, p)
				}
			},
			"put": func(t *rapid.T) {
				if len(m.taken) == 0 {
					return
				}
				all := make([]Phys, 0, len(m.taken))
				for p := range m.taken {
					all = append(all, p)
				}
				slices.SortFunc(all, Phys.Compare)
				p := rapid.SampledFrom(all).Draw(t, "chunk")
				delete(m.taken, p)
				m.a.Put(p)
			},
			"bar": func(t *rapid.T) {
				c, on := m.comp(t), rapid.Bool().Draw(t, "on")
				b := rapid.SampledFrom([]Bar{BarFailed, BarLeaving, BarRefused}).Draw(t, "bar")
				if m.bars[c] &^= b; on {
					m.bars[c] |= b
				}
				m.a.SetBar(c, b, on)
			},
			"keep and release": func(t *rapid.T) {
				c, n := m.comp(t), rapid.Uint32Range(0, 20).Draw(t, "below")
				n = min(n, firstChunk+m.size[c])
				used := 0
				for i := uint32(firstChunk); i < n; i++ {
					if m.taken[Phys{c, i}] {
						used++
					}
				}
				if got := m.a.ClaimBelow(c, n); got != used {
					t.Fatalf("%d below %d of component %d are in use, want %d", got, n, c, used)
				}
				m.a.ReleaseKept(c)
			},
		})
	})
}

func (m *model) agrees(t *rapid.T) {
	if got, want := m.a.Available(), max(0, m.free()-m.a.Reserve()); got != want {
		t.Fatalf("%d chunks are there, want %d", got, want)
	}
	for i, f := range m.a.Figures() {
		used := m.a.Used(uint16(i))
		if f.Owner != m.names[i] || f.Total != m.size[i] || f.Total-f.Free != used {
			t.Fatalf("component %d: %+v of %d chunks, %d of them used", i, f, m.size[i], used)
		}
		for c := uint32(firstChunk); c < firstChunk+f.Total; c++ {
			if p := (Phys{uint16(i), c}); m.a.IsFree(p) == m.taken[p] {
				t.Fatalf("%v: free %t", p, m.a.IsFree(p))
			}
		}
	}
}

// A chunk that is being zeroed ahead is taken by nobody until that has ended, and is
// known to be zeros only if it came to its end.
func TestAChunkThatIsPreparedIsTakenAfterwards(t *testing.T) {
	for _, whole := range []bool{true, false} {
		a := New[string](false, 0)
		a.Append(NewPool(firstChunk, firstChunk+8))
		p, at, ok := a.Prepare(4)
		if !ok {
			t.Fatal("nothing to prepare")
		}
		taken := make(chan Grant)
		go func() {
			g, _ := a.Take(nil, 1, false)
			taken <- g[0]
		}()
		for !a.IsWanted() {
			runtime.Gosched()
		}
		select {
		case g := <-taken:
			t.Fatalf("%v was taken meanwhile", g)
		default:
		}
		a.Prepared(p, at.Chunk, whole)
		if g := <-taken; g.At != at || g.Zeroed != whole {
			t.Errorf("%+v was taken, want %v with %t", g, at, whole)
		}
	}
}
