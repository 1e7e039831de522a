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

// zeroOp is the operation that wrote what was never written.
const zeroOp = 0

// step is one operation as the model sees it: it began at a position of the
// recorder's log and was acknowledged at another.
type step struct {
	id    uint64
	first int64 // units
	n     int64
	begun int
	acked int // position; 0 while it is not, or when it failed
	zero  bool
	fua   bool // durable once it is acknowledged
	any   bool // afterwards a unit may hold anything: a discard that covers no whole chunk
}

// model knows which operations touched each unit, in their order. Operations on one
// unit never overlap in time.
type model struct {
	steps   []*step
	units   [][]*step
	flushes []flushed
}

// flushed is one acknowledged flush.
type flushed struct{ begun, acked int }

func newModel(size int64) *model { return &model{units: make([][]*step, size/unit)} }

func (m *model) begin(first, n int64, begun int) *step {
	s := &step{id: uint64(len(m.steps) + 1), first: first, n: n, begun: begun}
	m.steps = append(m.steps, s)
	for u := first; u < first+n; u++ {
		m.units[u] = append(m.units[u], s)
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
	k       int
	allowed [][]uint64 // nil: zeros only
	any     []bool     // anything
	touched []bool     // by chunk: some unit may hold other than zeros
}

// at makes the view of power lost at k. With alive, only the process died: what was
// acknowledged is there.
func (m *model) at(k int, alive bool, chunk int64) *view {
	durable := m.durableBefore(k)
	if alive {
		durable = k
	}
	n := int64(len(m.units))
	w := &view{k: k, allowed: make([][]uint64, n), any: make([]bool, n), touched: make([]bool, (n*unit+chunk-1)/chunk)}
	var last []*step
	var lastAllowed []uint64
	var lastAny bool
	for u, steps := range m.units {
		if len(steps) == 0 || steps[0].begun >= k {
			continue
		}
		// Neighbours mostly have the same history.
		if !slices.Equal(steps, last) {
			last, lastAllowed, lastAny = steps, nil, false
			lastAllowed, lastAny = allowedAfter(steps, k, durable)
		}
		w.allowed[u], w.any[u] = lastAllowed, lastAny
		w.touched[int64(u)*unit/chunk] = true
	}
	return w
}

// allowedAfter is what a unit with a history may hold.
func allowedAfter(steps []*step, k, durable int) (allowed []uint64, anything bool) {
	allowed = append(allowed, zeroOp)
	for _, s := range steps {
		if s.begun >= k {
			break
		}
		value := s.id
		if s.zero {
			value = zeroOp
		}
		fixed := s.acked != 0 && (s.acked <= durable || s.fua && s.acked <= k)
		if fixed {
			allowed, anything = allowed[:0], false
		}
		allowed = append(allowed, value)
		anything = anything || s.any
	}
	return allowed, anything
}

// check says whether unit u may read as b.
func (w *view) check(u int64, b []byte) error {
	if w.any[u] {
		return nil
	}
	id := idOf(b)
	allowed := w.allowed[u]
	if id != zeroOp || allowed != nil {
		if allowed == nil {
			allowed = []uint64{zeroOp}
		}
		if !slices.Contains(allowed, id) {
			return fmt.Errorf("unit %d (byte %d) holds what operation %d wrote, allowed are %v", u, u*unit, id, allowed)
		}
	}
	if !bytes.Equal(b[8:], b[:len(b)-8]) {
		return fmt.Errorf("unit %d (byte %d) is torn: it begins with operation %d", u, u*unit, id)
	}
	return nil
}
