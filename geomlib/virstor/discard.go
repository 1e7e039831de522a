package virstor

import (
	"errors"

	"github.com/gvirstor/gvirstor/geomlib"
)

// discardStep is how many chunks one commit frees, so that a discard of a
// whole volume neither holds all its chunks nor starves other commits.
const discardStep = 128

// discard frees the chunks that r covers. What r covers of other chunks is
// written with zeros for OpWriteZeroes, and passed down for OpDelete.
func (v *Volume) discard(r *Request, block bool) {
	off, end := r.Offset+r.req.progress, r.Offset+r.Length
	if off >= end || v.chunks.nextAllocated(uint64(off/v.chunk), uint64((end-1)/v.chunk)+1) > uint64((end-1)/v.chunk) {
		v.finish(r, nil)
		return
	}
	if r.Op == OpDelete && v.cfg.Discard == DiscardOff {
		v.finish(r, nil)
		return
	}
	if !block {
		v.workers.put(r)
		return
	}
	for off < end {
		next := v.chunks.nextAllocated(uint64(off/v.chunk), uint64((end-1)/v.chunk)+1)
		off = max(off, int64(next)*v.chunk)
		if off >= end {
			break
		}
		var err error
		pc := v.pieceAt(off, end)
		switch {
		case pc.n == v.chunk && v.cfg.Discard == DiscardOn:
			off, err = v.freeChunks(off, end)
		case r.Op == OpWriteZeroes:
			var state pinState
			state, err = v.zeroPiece(pc)
			if err == nil && state == busy {
				if v.chunks.park(pc.vc, r) {
					return
				}
				continue
			}
			off += pc.n
		default:
			err = v.deletePiece(pc)
			off += pc.n
		}
		if err != nil {
			v.finish(r, err)
			return
		}
		r.req.progress = off - r.Offset
	}
	if r.Flags&FUA != 0 {
		v.finish(r, v.flushAll())
		return
	}
	v.finish(r, nil)
}

// zeroPiece makes a piece of an allocated chunk read as zeros.
func (v *Volume) zeroPiece(pc piece) (pinState, error) {
	at := int64(pc.vc)*v.chunk + pc.in
	if !v.aligned(at, pc.n) {
		return v.writeLocked(pc, nil)
	}
	ph, state := v.chunks.pin(pc.vc)
	if state != pinned {
		return state, nil
	}
	defer v.chunks.unpin(pc.vc)
	c := v.component(ph.comp)
	return pinned, c.clear(c.offset(ph.chunk)+pc.in, pc.n, v.zeros)
}

// deletePiece passes the whole sectors of a piece down to its component.
func (v *Volume) deletePiece(pc piece) error {
	from := (pc.in + v.sector - 1) &^ (v.sector - 1)
	to := (pc.in + pc.n) &^ (v.sector - 1)
	if from >= to {
		return nil
	}
	// Alone in the chunk: a write that was acknowledged while the device
	// still works on the delete must not be lost to it.
	ph, ok := v.chunks.lock(pc.vc)
	if !ok {
		return nil
	}
	defer v.chunks.unlock(pc.vc, wordOf(ph), v.resume)
	c := v.component(ph.comp)
	v.passDown(c, c.offset(ph.chunk)+from, to-from)
	return nil
}

// passDown tells a device that a range is not needed. That is advice: a device
// that cannot take it, or fails at it, loses nothing.
func (v *Volume) passDown(c *component, off, n int64) {
	if off+n > c.guard {
		n = c.guard - off
	}
	err := c.p().Delete(off, n)
	c.markDirty()
	if err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		v.log.Debug("delete not passed down", "component", c.name(), "offset", off, "length", n, "error", err)
	}
}

// freeChunks unmaps the allocated chunks that lie wholly in [off, end), up to
// discardStep of them, and returns how far it came.
func (v *Volume) freeChunks(off, end int64) (int64, error) {
	var ops []mapOp
	limit := uint64(end / v.chunk)
	vc := uint64(off / v.chunk)
	for len(ops) < discardStep {
		vc = v.chunks.nextAllocated(vc, limit)
		if vc >= limit {
			break
		}
		if ph, ok := v.chunks.lock(vc); ok {
			ops = append(ops, mapOp{vc: vc, old: ph})
		}
		vc++
	}
	if len(ops) > 0 {
		if err := v.committer.commit(ops); err != nil {
			return off, err
		}
	}
	return int64(vc) * v.chunk, nil
}
