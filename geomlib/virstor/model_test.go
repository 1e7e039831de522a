package virstor

import (
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
	byUnit  map[int64][]*step
	flushes []flushed
}

// flushed is one acknowledged flush.
type flushed struct{ begun, acked int }

func newModel() *model { return &model{byUnit: make(map[int64][]*step)} }

func (m *model) begin(first, n int64, begun int) *step {
	s := &step{id: uint64(len(m.steps) + 1), first: first, n: n, begun: begun}
	m.steps = append(m.steps, s)
	for u := first; u < first+n; u++ {
		m.byUnit[u] = append(m.byUnit[u], s)
	}
	return s
}

// fill writes the id of a step all over b.
func fill(b []byte, id uint64) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], id)
	}
}

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

// check says whether a unit may read as b after the power failed at k. With
// alive, only the process died: what was acknowledged is there.
func (m *model) check(u int64, b []byte, k int, alive bool) error {
	durable := m.durableBefore(k)
	if alive {
		durable = k
	}
	id := binary.LittleEndian.Uint64(b)
	allowed := []uint64{zeroOp}
	for _, s := range m.byUnit[u] {
		if s.begun >= k {
			break
		}
		if s.any {
			return nil
		}
		value := s.id
		if s.zero {
			value = zeroOp
		}
		if s.acked != 0 && (s.acked <= durable || s.fua && s.acked <= k) {
			allowed = append(allowed[:0], value)
		} else {
			allowed = append(allowed, value)
		}
	}
	if !slices.Contains(allowed, id) {
		return fmt.Errorf("unit %d (byte %d) holds what operation %d wrote, allowed are %v (durable up to %d of %d)",
			u, u*unit, id, allowed, durable, k)
	}
	for i := 8; i < len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != id {
			return fmt.Errorf("unit %d (byte %d) is torn: operation %d and, at %d, %d", u, u*unit, id, i,
				binary.LittleEndian.Uint64(b[i:]))
		}
	}
	return nil
}

// settle makes what was read after a crash the truth, so that the model can go
// on from it.
func (m *model) settle(u int64, b []byte) {
	id := binary.LittleEndian.Uint64(b)
	if id == zeroOp {
		if len(m.byUnit[u]) > 0 {
			m.byUnit[u] = []*step{{zero: true, acked: -1}}
		}
		return
	}
	m.byUnit[u] = []*step{{id: id, acked: -1}}
}
