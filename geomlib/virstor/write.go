package virstor

import (
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// write writes what is allocated, and goes through the committer first when
// anything is not.
func (v *Volume) write(r *Request, block bool) {
	off, end := r.Offset+r.req.progress, r.Offset+r.Length
	if v.lacksChunk(r) {
		v.committer.put(r)
		return
	}
	if !block && (!v.inline.Load() || r.Length > v.inlineLimit || r.Flags&FUA != 0 || r.Op != OpWrite || !v.aligned(r.Offset, r.Length)) {
		v.workers.put(r)
		return
	}
	for off < end {
		stop := end
		if r.req.later != nil {
			if off, stop = r.ahead(off); off == stop {
				break
			}
		}
		pc := v.pieceAt(off, stop)
		var data []byte
		if r.Op == OpWrite {
			data = r.Data[off-r.Offset:][:pc.n]
		}
		var state chunkmap.State
		var err error
		if v.aligned(off, pc.n) {
			state, err = v.writePinned(pc, data)
		} else {
			state, err = v.writeLocked(pc, data)
		}
		if err != nil {
			v.writeFailed(r, err)
			return
		}
		switch state {
		case chunkmap.Busy:
			if v.park(pc.vc, r) {
				return
			}
			continue
		case chunkmap.Unallocated, chunkmap.Shared: // freed since, or frozen
			v.committer.put(r)
			return
		}
		off += pc.n
		r.req.progress = off - r.Offset
	}
	if r.Flags&FUA != 0 {
		v.leaveWrites(r)
		v.finishFUA(r)
		return
	}
	v.finish(r, nil)
}

// writeFailed ends r, unless it found the storage of a component full and is to
// wait for room: who overwrites in a hole needs some, or writes zeros there.
func (v *Volume) writeFailed(r *Request, err error) {
	if !v.holdsFor(err) {
		v.finish(r, err)
		return
	}
	r.req.noRoom = err
	v.committer.put(r)
}

// lacksChunk reports whether any chunk that is left for r to write has no mapping, or one
// that a snapshot may have too.
func (v *Volume) lacksChunk(r *Request) bool {
	off := r.Offset + r.req.progress
	if r.req.later == nil {
		return v.lacksIn(off, r.Offset+r.Length)
	}
	for from, to := r.ahead(off); from < to; from, to = r.ahead(to) {
		if v.lacksIn(from, to) {
			return true
		}
	}
	return false
}

// lacksIn is lacksChunk of [off, end).
func (v *Volume) lacksIn(off, end int64) bool {
	if v.unallocatedIn(off, end) {
		return true
	}
	if off >= end || !v.chunks.IsFrozen() {
		return false
	}
	for vc, last := v.chunkOf(off), v.chunkOf(end-1); vc <= last; vc++ {
		if v.isShared(uint64(vc)) {
			return true
		}
	}
	return false
}

// isShared reports whether a snapshot may name the physical chunk of vc.
func (v *Volume) isShared(vc uint64) bool {
	return v.chunks.IsShared(vc) && !v.cfg.breaks(breakSharedInPlace)
}

// pinWrite is chunkmap.Map.PinWrite.
func (v *Volume) pinWrite(vc uint64) (alloc.Phys, chunkmap.State) {
	if v.cfg.breaks(breakSharedInPlace) {
		return v.chunks.Pin(vc)
	}
	return v.chunks.PinWrite(vc)
}

// unallocatedIn reports whether any chunk of [off, end) has no mapping.
func (v *Volume) unallocatedIn(off, end int64) bool {
	if off >= end {
		return false
	}
	for vc, last := v.chunkOf(off), v.chunkOf(end-1); vc <= last; vc++ {
		if !v.chunks.Load(uint64(vc)).Allocated() {
			return true
		}
	}
	return false
}

// writePinned overwrites whole sectors. A nil data writes zeros.
func (v *Volume) writePinned(pc piece, data []byte) (chunkmap.State, error) {
	ph, state := v.pinWrite(pc.vc)
	if state != chunkmap.Pinned {
		return state, nil
	}
	defer v.chunks.Unpin(pc.vc)
	if err := v.gaveUp(); err != nil {
		return chunkmap.Pinned, err
	}
	c := v.component(ph.Comp)
	at := c.offset(ph.Chunk) + pc.in
	v.partial.written(pc.vc, pc.in, pc.n) // zeros too: they are to stay backed
	if data == nil {
		return chunkmap.Pinned, c.writeZeros(at, pc.n, v.zeros)
	}
	return chunkmap.Pinned, c.writeAt(data, at)
}

// writeLocked overwrites any range of a chunk, which it takes for itself, so
// that what else is in the sectors stays as it is.
func (v *Volume) writeLocked(pc piece, data []byte) (chunkmap.State, error) {
	ph, state := v.chunks.TryLock(pc.vc)
	if state != chunkmap.Pinned {
		return state, nil
	}
	defer v.chunks.Unlock(pc.vc, chunkmap.WordOf(ph))
	if v.isShared(pc.vc) {
		return chunkmap.Shared, nil
	}
	if err := v.gaveUp(); err != nil {
		return chunkmap.Pinned, err
	}
	c := v.component(ph.Comp)
	at, n := c.offset(ph.Chunk)+pc.in, pc.n
	v.partial.written(pc.vc, pc.in, pc.n)
	s := v.sectors.get()
	defer v.sectors.put(s)
	for n > 0 {
		in := at & (v.sector - 1)
		k := n &^ (v.sector - 1)
		var err error
		if in == 0 && k > 0 {
			if data == nil {
				err = c.writeZeros(at, k, v.zeros)
			} else {
				err = c.writeAt(data[:k], at)
			}
		} else {
			k = min(n, v.sector-in)
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
