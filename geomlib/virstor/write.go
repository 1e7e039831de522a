package virstor

import (
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// write writes what is allocated, and goes through the committer first when
// anything is not.
func (h *Head) write(r *Request, block bool) {
	off, end := r.Offset+r.req.progress, r.Offset+r.Length
	if h.lacksChunk(r) {
		h.committer.put(r)
		return
	}
	if !block && (!h.v.inline.Load() || r.Length > h.v.inlineLimit || r.Flags&FUA != 0 || r.Op != OpWrite || !h.v.aligned(r.Offset, r.Length)) {
		if !h.startWrite(r) {
			h.v.workers.put(r)
		}
		return
	}
	for off < end {
		stop := end
		if r.req.later != nil {
			if off, stop = r.ahead(off); off == stop {
				break
			}
		}
		pc := h.v.pieceAt(off, stop)
		var data []byte
		if r.Op == OpWrite {
			data = r.Data[off-r.Offset:][:pc.n]
		}
		var state chunkmap.State
		var err error
		if h.v.aligned(off, pc.n) {
			state, err = h.writePinned(pc, data)
		} else {
			state, err = h.writeLocked(pc, data)
		}
		if err != nil {
			h.writeFailed(r, err)
			return
		}
		switch state {
		case chunkmap.Busy:
			if h.park(pc.vc, r) {
				return
			}
			continue
		case chunkmap.Unallocated, chunkmap.Shared: // freed since, or frozen
			h.committer.put(r)
			return
		}
		off += pc.n
		r.req.progress = off - r.Offset
	}
	if r.Flags&FUA != 0 {
		h.leaveWrites(r)
		h.finishFUA(r)
		return
	}
	h.finish(r, nil)
}

// writeFailed ends r, unless it found the storage of a component full and is to
// wait for room: who overwrites in a hole needs some, or writes zeros there.
func (h *Head) writeFailed(r *Request, err error) {
	if !h.v.holdsFor(err) {
		h.finish(r, err)
		return
	}
	r.req.noRoom = err
	h.committer.put(r)
}

// lacksChunk reports whether any chunk that is left for r to write has no mapping, or one
// that a snapshot may have too.
func (h *Head) lacksChunk(r *Request) bool {
	off := r.Offset + r.req.progress
	if r.req.later == nil {
		return h.lacksIn(off, r.Offset+r.Length)
	}
	for from, to := r.ahead(off); from < to; from, to = r.ahead(to) {
		if h.lacksIn(from, to) {
			return true
		}
	}
	return false
}

// lacksIn is lacksChunk of [off, end).
func (h *Head) lacksIn(off, end int64) bool {
	if h.unallocatedIn(off, end) {
		return true
	}
	if off >= end || !h.chunks.IsFrozen() {
		return false
	}
	for vc, last := h.v.chunkOf(off), h.v.chunkOf(end-1); vc <= last; vc++ {
		if h.isShared(uint64(vc)) {
			return true
		}
	}
	return false
}

// isShared reports whether a snapshot may name the physical chunk of vc.
func (h *Head) isShared(vc uint64) bool {
	return h.chunks.IsShared(vc) && !h.v.cfg.breaks(breakSharedInPlace)
}

// pinWrite is chunkmap.Map.PinWrite.
func (h *Head) pinWrite(vc uint64) (alloc.Phys, chunkmap.State) {
	if h.v.cfg.breaks(breakSharedInPlace) {
		return h.chunks.Pin(vc)
	}
	return h.chunks.PinWrite(vc)
}

// unallocatedIn reports whether any chunk of [off, end) has no mapping.
func (h *Head) unallocatedIn(off, end int64) bool {
	if off >= end {
		return false
	}
	for vc, last := h.v.chunkOf(off), h.v.chunkOf(end-1); vc <= last; vc++ {
		if !h.chunks.Load(uint64(vc)).Allocated() {
			return true
		}
	}
	return false
}

// writePinned overwrites whole sectors. A nil data writes zeros.
func (h *Head) writePinned(pc piece, data []byte) (chunkmap.State, error) {
	ph, state := h.pinWrite(pc.vc)
	if state != chunkmap.Pinned {
		return state, nil
	}
	defer h.chunks.Unpin(pc.vc)
	if err := h.gaveUp(); err != nil {
		return chunkmap.Pinned, err
	}
	c := h.v.component(ph.Comp)
	at := c.offset(ph.Chunk) + pc.in
	h.partial.written(pc.vc, pc.in, pc.n) // zeros too: they are to stay backed
	if data == nil {
		return chunkmap.Pinned, c.writeZeros(at, pc.n, h.v.zeros)
	}
	return chunkmap.Pinned, c.writeAt(data, at)
}

// writeLocked overwrites any range of a chunk, which it takes for itself, so
// that what else is in the sectors stays as it is.
func (h *Head) writeLocked(pc piece, data []byte) (chunkmap.State, error) {
	ph, state := h.chunks.TryLock(pc.vc)
	if state != chunkmap.Pinned {
		return state, nil
	}
	defer h.chunks.Unlock(pc.vc, chunkmap.WordOf(ph))
	if h.isShared(pc.vc) {
		return chunkmap.Shared, nil
	}
	if err := h.gaveUp(); err != nil {
		return chunkmap.Pinned, err
	}
	c := h.v.component(ph.Comp)
	at, n := c.offset(ph.Chunk)+pc.in, pc.n
	h.partial.written(pc.vc, pc.in, pc.n)
	s := h.v.sectors.get()
	defer h.v.sectors.put(s)
	for n > 0 {
		in := at & (h.v.sector - 1)
		k := n &^ (h.v.sector - 1)
		var err error
		if in == 0 && k > 0 {
			if data == nil {
				err = c.writeZeros(at, k, h.v.zeros)
			} else {
				err = c.writeAt(data[:k], at)
			}
		} else {
			k = min(n, h.v.sector-in)
			err = c.patchSector(*s, at-in, in, k, data)
		}
		if err != nil {
			return chunkmap.Pinned, err
		}
		if data != nil {
			data = data[k:]
		}
		at, n = at+k, n-k
	}
	return chunkmap.Pinned, nil
}

// patchSector replaces k bytes from in of the sector at base.
func (c *component) patchSector(s []byte, base, in, k int64, data []byte) error {
	if err := c.readAt(s, base); err != nil {
		return err
	}
	if data == nil {
		clear(s[in : in+k])
	} else {
		copy(s[in:in+k], data)
	}
	return c.writeAt(s, base)
}

// writeZeros sends zeros, so that the range stays backed by the medium.
func (c *component) writeZeros(off, n int64, zeros []byte) error {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if err := c.writeAt(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}
