package virstor

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// moveChunk moves virtual chunk vc from one place to another, which the caller
// has taken from the allocator. It reports false, and gives the new place
// back, when vc is not there any more. I/O to the chunk waits meanwhile.
//
// Copy, flush, one map sector; the old place is free when that is durable.
func (v *Volume) moveChunk(vc uint64, from, to alloc.Phys, buf []byte) (bool, error) {
	if err := v.cond.refusal(deedAllocate); err != nil { // the chunk may be one in doubt, which nobody gets
		v.alloc.Put(to)
		return false, fmt.Errorf("move virtual chunk %d of %s: %w", vc, v.name, err)
	}
	ph, ok := v.chunks.Lock(vc)
	if !ok {
		v.alloc.Put(to)
		return false, nil
	}
	if ph != from {
		v.chunks.Unlock(vc, chunkmap.WordOf(ph))
		v.alloc.Put(to)
		return false, nil
	}
	if v.goesByRecord(mapping{vc, from}) { // it is not the volume's alone
		v.chunks.Unlock(vc, chunkmap.WordOf(from))
		v.alloc.Put(to)
		return false, nil
	}
	if err := v.copyChunk(from, to, buf); err != nil {
		v.chunks.Unlock(vc, chunkmap.WordOf(from))
		v.alloc.Put(to)
		return false, fmt.Errorf("move virtual chunk %d of %s: %w", vc, v.name, err)
	}
	return true, v.committer.commit([]mapOp{{vc: vc, old: from, new: to, set: true}})
}

// copyChunk copies a chunk and flushes the copy. What is zeros becomes zeros
// in the cheapest way.
func (v *Volume) copyChunk(from, to alloc.Phys, buf []byte) error {
	if err := v.copyRange(from, to, extent{0, v.chunk}, buf); err != nil {
		return err
	}
	if v.cfg.breaks(breakCopyFlush) {
		return nil
	}
	return v.component(to.Comp).flush()
}

// copyRange copies a range of a chunk, of whole sectors.
func (v *Volume) copyRange(from, to alloc.Phys, r extent, buf []byte) error {
	src, dst := v.component(from.Comp), v.component(to.Comp)
	s, d := src.offset(from.Chunk), dst.offset(to.Chunk)
	end := r.to
	if s+end > src.guard {
		// The kernel class allocated this chunk over its metadata sector: what
		// was written there is gone, and reads as zeros from now on.
		end = max(r.from, src.guard-s)
		if err := dst.clear(d+end, r.to-end, v.zeros); err != nil {
			return err
		}
	}
	for at := r.from; at < end; {
		b := buf[:min(int64(len(buf)), end-at)]
		if err := src.readAt(b, s+at); err != nil {
			return err
		}
		var err error
		if bytes.Equal(b, v.zeros[:len(b)]) {
			err = dst.clear(d+at, int64(len(b)), v.zeros)
		} else {
			err = dst.writeAt(b, d+at)
		}
		if err != nil {
			return err
		}
		at += int64(len(b))
	}
	return nil
}

// mapping is a chunk by both its names.
type mapping struct {
	vc uint64
	at alloc.Phys
}

// mover moves chunks for a job. Those that the volume alone has go one by one. Those that
// snapshots name are only copied, until settle lets many of them go by one record.
type mover struct {
	v      *Volume
	j      *jobHandle
	off    func(alloc.Phys) bool // places that are to be empty
	buf    []byte
	copied []move
	parts  map[int64]bool // of the map, that name what was copied
}

// moveBatch is how many chunks that snapshots name go by one record, which takes a new
// copy of a part of each snapshot's map.
const moveBatch = 256

// moveParts is of how many parts of the map such chunks are, at most: so many are copied
// for each snapshot.
const moveParts = 4

func (v *Volume) newMover(j *jobHandle, off func(alloc.Phys) bool) *mover {
	return &mover{v: v, j: j, off: off, buf: make([]byte, min(moveBuffer, v.chunk))}
}

// move moves a chunk to a place that the caller has taken, and counts it. It reports false,
// and gives the place back, when it is not there any more.
func (m *mover) move(pl mapping, to alloc.Phys) (bool, error) {
	v := m.v
	moved := true
	var err error
	if v.goesByRecord(pl) {
		if err := m.makeWay(pl.vc); err != nil {
			v.alloc.Put(to)
			return false, err
		}
		m.copied = append(m.copied, move{pl, to})
		if err = v.copyRange(pl.at, to, extent{0, v.chunk}, m.buf); err != nil {
			err = fmt.Errorf("copy virtual chunk %d of %s, which snapshots have: %w", pl.vc, v.name, err)
		}
	} else {
		moved, err = v.moveChunk(pl.vc, pl.at, to, m.buf)
	}
	if err != nil {
		return false, err
	}
	n := int64(0)
	if moved {
		n = 1
	}
	if err := m.j.step(v.chunk, n); err != nil {
		return moved, err
	}
	return moved, nil
}

// goesByRecord reports whether a chunk is one that a snapshot names.
func (v *Volume) goesByRecord(pl mapping) bool {
	if v.cfg.breaks(breakMovedAlone) && v.chunks.Load(pl.vc).Mapping() == chunkmap.WordOf(pl.at) {
		return false
	}
	return v.isNamed(pl)
}

// makeWay settles what was copied where one more, vc, would be too many.
func (m *mover) makeWay(vc uint64) error {
	part := int64(vc) * ondisk.EntrySize / m.v.chunk
	if len(m.copied) >= moveBatch || len(m.parts) >= moveParts && !m.parts[part] {
		if err := m.settle(); err != nil {
			return err
		}
	}
	if m.parts == nil {
		m.parts = make(map[int64]bool)
	}
	m.parts[part] = true
	return nil
}

// settle lets go what was copied.
func (m *mover) settle() error {
	if len(m.copied) == 0 {
		return nil
	}
	r := relocation{v: m.v, moves: m.copied, off: m.off}
	m.copied, m.parts = nil, nil
	return r.relocate()
}

// end gives back the places of what was copied and is not to move.
func (m *mover) end() {
	for _, c := range m.copied {
		m.v.alloc.Put(c.to)
	}
	m.copied, m.parts = nil, nil
}

// clearSystem moves the chunks of snapshots' maps and of the directory.
func (m *mover) clearSystem() error {
	left := m.systemLeft()
	m.j.more(left * m.v.chunk)
	for left > 0 {
		if err := (relocation{v: m.v, off: m.off, system: true}).relocate(); err != nil {
			return err
		}
		now := m.systemLeft()
		if now >= left {
			return fmt.Errorf("move the maps of the snapshots of %s: %w", m.v.name, ErrNoSpace)
		}
		if err := m.j.step((left-now)*m.v.chunk, left-now); err != nil {
			return err
		}
		left = now
	}
	return nil
}

// systemLeft is how many chunks of snapshots' maps and of the directory are to move.
func (m *mover) systemLeft() int64 { return m.v.systemWhere(m.off) }

// systemWhere counts the chunks of snapshots' maps and of the directory that pick chooses.
func (v *Volume) systemWhere(pick func(alloc.Phys) bool) (n int64) {
	for _, p := range v.systemChunks() {
		if pick(p) {
			n++
		}
	}
	return n
}

// countWhere counts the chunks in use that pick chooses: of the volume, of its snapshots, and
// of the maps and the directory of those.
func (v *Volume) countWhere(pick func(alloc.Phys) bool) int64 {
	return int64(len(v.placesWhere(pick))) + v.systemWhere(pick)
}

// placesWhere lists the chunks that pick chooses of the volume and of its snapshots, each
// once, in virtual order.
func (v *Volume) placesWhere(pick func(alloc.Phys) bool) []mapping {
	ps := v.chunksWhere(pick)
	if !v.chunks.IsFrozen() {
		return ps
	}
	v.chunks.EachKept(func(vc uint64, w chunkmap.Word) bool {
		if pick(w.Phys()) {
			ps = append(ps, mapping{vc, w.Phys()})
		}
		return true
	})
	slices.SortFunc(ps, func(a, b mapping) int { return cmp.Or(cmp.Compare(a.vc, b.vc), a.at.Compare(b.at)) })
	return slices.Compact(ps)
}

// chunksWhere lists the allocated chunks that pick chooses, in virtual order.
func (v *Volume) chunksWhere(pick func(alloc.Phys) bool) []mapping {
	var ps []mapping
	n := uint64(v.Size() / v.chunk)
	for vc := v.chunks.NextAllocated(0, n); vc < n; vc = v.chunks.NextAllocated(vc+1, n) {
		if p := v.chunks.Load(vc).Phys(); pick(p) {
			ps = append(ps, mapping{vc, p})
		}
	}
	return ps
}
