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
func (h *Head) moveChunk(vc uint64, from, to alloc.Phys, buf []byte) (bool, error) {
	v := h.v
	if !h.writes.tryEnter() { // it is being deleted, and its committer is about to end
		v.alloc.Put(to)
		v.metaMu.Lock() // until that is done, or given up
		defer v.metaMu.Unlock()
		return false, nil
	}
	defer h.writes.leave()
	if err := h.refusal(deedAllocate); err != nil { // the chunk may be one in doubt, which nobody gets
		v.alloc.Put(to)
		return false, fmt.Errorf("move virtual chunk %d of %s: %w", vc, h.Name(), err)
	}
	ph, ok := h.chunks.Lock(vc)
	if !ok {
		v.alloc.Put(to)
		return false, nil
	}
	if ph != from || v.goesByRecord(mapping{vc, from}) { // it is not there, or not the volume's alone
		h.chunks.Unlock(vc, chunkmap.WordOf(ph))
		v.alloc.Put(to)
		return false, nil
	}
	if err := v.copyChunk(from, to, buf); err != nil {
		h.chunks.Unlock(vc, chunkmap.WordOf(from))
		v.alloc.Put(to)
		return false, fmt.Errorf("move virtual chunk %d of %s: %w", vc, h.Name(), err)
	}
	return true, h.committer.commit([]mapOp{{vc: vc, old: from, new: to, set: true}})
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
	if dst.share(d+r.from, src, s+r.from, end-r.from) {
		return nil
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
	} else if h := v.headWith(pl); h != nil {
		moved, err = h.moveChunk(pl.vc, pl.at, to, m.buf)
	} else {
		v.alloc.Put(to)
		moved = false
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
	if v.cfg.breaks(breakMovedAlone) && v.headWith(pl) != nil {
		return false
	}
	return v.isNamed(pl)
}

// headWith is the volume whose map names a chunk, or one of them; nil: none does.
func (v *Volume) headWith(pl mapping) *Head {
	for _, h := range v.heads() {
		if h.names(pl) {
			return h
		}
	}
	return nil
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

// clearSystem moves the chunks of maps and of the directory.
func (m *mover) clearSystem() error {
	left := m.systemLeft()
	m.j.more(left * m.v.chunk)
	for left > 0 {
		if err := (relocation{v: m.v, off: m.off, system: true}).relocate(); err != nil {
			return err
		}
		if err := m.v.waitFreed(); err != nil { // which may be where the rest goes
			return err
		}
		now := m.systemLeft()
		if now >= left {
			return fmt.Errorf("move the maps of the volumes and snapshots of %s: %w", m.v.name, ErrNoSpace)
		}
		if err := m.j.step((left-now)*m.v.chunk, left-now); err != nil {
			return err
		}
		left = now
	}
	return nil
}

// systemLeft is how many chunks of maps and of the directory are to move.
func (m *mover) systemLeft() int64 { return m.v.systemWhere(m.off) }

// systemWhere counts the chunks of maps and of the directory that pick chooses: not of the
// first volume's map.
func (v *Volume) systemWhere(pick func(alloc.Phys) bool) (n int64) {
	for _, p := range v.systemChunks() {
		if pick(p) {
			n++
		}
	}
	return n
}

// countWhere counts the chunks in use that pick chooses: of the volumes, of their snapshots,
// and of the maps and the directory of those.
func (v *Volume) countWhere(pick func(alloc.Phys) bool) int64 {
	return int64(len(v.placesWhere(pick))) + v.systemWhere(pick)
}

// placesWhere lists the chunks that pick chooses of all volumes and snapshots, each once, in
// virtual order.
func (v *Volume) placesWhere(pick func(alloc.Phys) bool) []mapping {
	ps := v.chunksWhere(pick)
	further := v.further()
	if !v.chunks.IsFrozen() && further == nil {
		return ps
	}
	for _, h := range v.heads() {
		if !h.isFirst() {
			ps = append(ps, h.chunksWhere(pick)...)
		}
		h.chunks.EachKept(func(vc uint64, w chunkmap.Word) bool {
			if pick(w.Phys()) {
				ps = append(ps, mapping{vc, w.Phys()})
			}
			return true
		})
	}
	slices.SortFunc(ps, func(a, b mapping) int { return cmp.Or(cmp.Compare(a.vc, b.vc), a.at.Compare(b.at)) })
	return slices.Compact(ps)
}

// chunksWhere lists the allocated chunks that pick chooses, in virtual order.
func (h *Head) chunksWhere(pick func(alloc.Phys) bool) []mapping {
	var ps []mapping
	h.eachWord(func(vc uint64, p alloc.Phys) bool {
		if pick(p) {
			ps = append(ps, mapping{vc, p})
		}
		return true
	})
	return ps
}
