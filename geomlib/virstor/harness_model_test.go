package virstor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// unit is the grain of the model: what is written is whole units, each filled
// with the number of the operation that wrote it.
const unit = 512

const (
	// zeroOp is the operation that wrote what was never written.
	zeroOp = 0
	// odd stands for the operation of a unit that may hold anything.
	odd = ^uint64(0)
)

// step is one operation as the model sees it: it began at a position of the
// recorder's log and was acknowledged at another.
type step struct {
	id    uint64
	begun int
	acked int // position; 0 while it is not, or when it failed
	ended int // position; 0 while it may still be done
	zero  bool
	fua   bool // durable once it is acknowledged
	any   bool // afterwards a unit may hold anything: a discard that covers no whole chunk
}

// model knows which operations touched each unit, in their order. Operations on one
// unit may overlap in time.
type model struct {
	per     int64               // units of a chunk
	steps   map[int64][][]*step // by chunk and unit in it
	flushes []flushed
	lastID  uint64

	// base is what was there before the first step, as it was read. Up to the
	// position settled a loss of power could leave what cached allows instead.
	base    contents
	cached  *view
	settled int

	forgotten []forgotten
}

// forgotten is what disks that forget may have lost to flushes that failed: what was
// acknowledged between from and to, and was not durable, is there or not from
// then on.
type forgotten struct{ from, to int }

// forget tells that the volume was opened again, at position now, after a flush of a
// disk that forgets had failed.
func (m *model) forget(now int) {
	m.forgotten = append(m.forgotten, forgotten{m.durableBefore(now), now})
}

// certain reports whether what was acknowledged at a position was not forgotten.
func (m *model) certain(acked int) bool {
	return !slices.ContainsFunc(m.forgotten, func(f forgotten) bool { return f.from < acked && acked <= f.to })
}

// contents is what each unit is known to hold, by chunk; zeros where there is no
// chunk.
type contents map[int64][]uint64

// flushed is one acknowledged flush.
type flushed struct{ begun, acked int }

func newModel(chunk int64) *model { return &model{per: chunk / unit, steps: make(map[int64][][]*step)} }

// goOn is the model of a volume that a crash of this one left. cached is what a
// loss of power may leave of it as long as it has not been flushed; nil: it was
// the power that failed.
func (m *model) goOn(cached *view) *model {
	n := newModel(m.per * unit)
	n.lastID, n.cached = m.lastID, cached
	return n
}

func (m *model) begin(first, n int64, begun int) *step {
	m.lastID++
	s := &step{id: m.lastID, begun: begun}
	for u := first; u < first+n; u++ {
		if m.steps[u/m.per] == nil {
			m.steps[u/m.per] = make([][]*step, m.per)
		}
		at := &m.steps[u/m.per][u%m.per]
		*at = append(*at, s)
	}
	return s
}

// fill writes the id of a step all over b.
func fill(b []byte, id uint64) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], id)
	}
}

// idOf is the id that fill wrote to b.
func idOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// durableBefore is the position such that what was acknowledged up to it is on
// stable storage when the power fails at k.
func (m *model) durableBefore(k int) int {
	best := 0
	for _, f := range m.flushes {
		if f.acked <= k {
			best = max(best, f.begun)
		}
	}
	return best
}

// view is what each unit may hold after a crash at one position.
type view struct {
	per    int64
	chunks map[int64][]allowed // by chunk and unit in it; zeros where there is none
}

// allowed is what a unit may hold.
type allowed struct {
	ids []uint64
	any bool
}

var zerosOnly = allowed{ids: []uint64{zeroOp}}

// of is what unit u may hold.
func (w *view) of(u int64) allowed {
	if c := w.chunks[u/w.per]; c != nil {
		return c[u%w.per]
	}
	return zerosOnly
}

// at makes the view of power lost at k. With alive, only the process died: what was
// acknowledged is there.
func (m *model) at(k int, alive bool) *view {
	durable := m.durableBefore(k)
	if alive {
		durable = k
	}
	var cached map[int64][]allowed
	if !alive && m.cached != nil && k < m.settled {
		cached = m.cached.chunks
	}
	w := &view{per: m.per, chunks: make(map[int64][]allowed)}
	for vc := range m.base {
		m.atChunk(w, vc, cached[vc], k, durable)
	}
	for vc := range cached {
		if w.chunks[vc] == nil {
			m.atChunk(w, vc, cached[vc], k, durable)
		}
	}
	for vc := range m.steps {
		if w.chunks[vc] == nil {
			m.atChunk(w, vc, cached[vc], k, durable)
		}
	}
	return w
}

// atChunk fills in what the units of one chunk may hold. Where cached is given
// it comes before what the steps wrote.
func (m *model) atChunk(w *view, vc int64, cached []allowed, k, durable int) {
	units := make([]allowed, m.per)
	base, steps := m.base[vc], m.steps[vc]
	for i := range units {
		from := zerosOnly
		switch {
		case cached != nil:
			from = cached[i]
		case base != nil && base[i] != zeroOp:
			from = allowed{[]uint64{base[i]}, base[i] == odd}
		}
		if steps == nil || len(steps[i]) == 0 || steps[i][0].begun >= k {
			units[i] = from
			continue
		}
		// Neighbours mostly have the same history.
		if i > 0 && cached == nil && (base == nil || base[i] == base[i-1]) && slices.Equal(steps[i], steps[i-1]) {
			units[i] = units[i-1]
			continue
		}
		units[i] = m.after(from, steps[i], k, durable)
	}
	w.chunks[vc] = units
}

// after is what a unit that held from may hold after a history. Of two operations
// that were under way at once, either may have been the last.
func (m *model) after(from allowed, steps []*step, k, durable int) allowed {
	kept := make([]*step, 0, len(steps))
	for _, s := range steps {
		if s.begun >= k {
			break
		}
		if s.acked != 0 && (s.acked <= durable && m.certain(s.acked) || s.fua && s.acked <= k) {
			from = allowed{}
			kept = slices.DeleteFunc(kept, func(t *step) bool { return t.endedBefore(s.begun) })
		}
		kept = append(kept, s)
	}
	a := allowed{slices.Clone(from.ids), from.any}
	for _, s := range kept {
		value := s.id
		if s.zero {
			value = zeroOp
		}
		a.ids = append(a.ids, value)
		a.any = a.any || s.any
	}
	return a
}

// endedBefore reports whether s was over at a position.
func (s *step) endedBefore(k int) bool {
	return s.ended != 0 && s.ended < k || s.acked != 0 && s.acked < k
}

// during is what a read from the position begun to ended may find in unit u.
func (m *model) during(u int64, begun, ended int) allowed {
	vc, i := u/m.per, u%m.per
	from := zerosOnly
	if base := m.base[vc]; base != nil && base[i] != zeroOp {
		from = allowed{[]uint64{base[i]}, base[i] == odd}
	}
	if m.steps[vc] == nil {
		return from
	}
	return m.after(from, m.steps[vc][i], ended, begun)
}

// check says whether unit u may read as b.
func (w *view) check(u int64, b []byte) error { return w.of(u).check(u, b) }

// checkZero says whether unit u, of which a is allowed, may read as zeros.
func (a allowed) checkZero(u int64) error {
	if a.any || slices.Contains(a.ids, zeroOp) {
		return nil
	}
	return fmt.Errorf("unit %d (byte %d) is not there, allowed are %v", u, u*unit, a.ids)
}

// check says whether unit u, of which a is allowed, may read as b.
func (a allowed) check(u int64, b []byte) error {
	if a.any {
		return nil
	}
	id := idOf(b)
	if !slices.Contains(a.ids, id) {
		return fmt.Errorf("unit %d (byte %d) holds what operation %d wrote, allowed are %v", u, u*unit, id, a.ids)
	}
	if !bytes.Equal(b[8:], b[:len(b)-8]) {
		return fmt.Errorf("unit %d (byte %d) is torn: it begins with operation %d", u, u*unit, id)
	}
	return nil
}
