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
		v.finishDiscard(r, block)
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
			off, _, err = v.freeChunks(off, end)
		default:
			err = v.discardPiece(pc, r.Op != OpDelete)
			off += pc.n
		}
		if err != nil {
			v.finish(r, err)
			return
		}
		r.req.progress = off - r.Offset
	}
	v.finishDiscard(r, block)
}

// finishDiscard completes a discard all of which is done. With FUA that takes a
// flush even where nothing was allocated: what freed it may not be durable.
func (v *Volume) finishDiscard(r *Request, block bool) {
	switch {
	case r.Flags&FUA == 0:
		v.finish(r, nil)
	case block || v.allClean():
		v.finish(r, v.flushAll())
	default:
		v.workers.put(r)
	}
}

// discardPiece gives up a piece of an allocated chunk: with zero it reads as
// zeros afterwards, else its whole sectors are passed down. The chunk is freed
// when nothing of it is left.
//
// It has the chunk to itself: a write that was acknowledged while the device
// still works on the delete must not be lost to it.
func (v *Volume) discardPiece(pc piece, zero bool) error {
	if zero && !v.aligned(int64(pc.vc)*v.chunk+pc.in, pc.n) {
		_, err := v.writeLocked(pc, nil)
		return err
	}
	ph, ok := v.chunks.lock(pc.vc)
	if !ok {
		return nil
	}
	err := v.gaveUp()
	if err == nil {
		err = v.discardLocked(pc, ph, zero)
	}
	if err == nil && v.cfg.Discard == DiscardOn && v.partial.discarded(pc.vc, pc.in, pc.n) {
		return v.committer.commit([]mapOp{{vc: pc.vc, old: ph}})
	}
	v.chunks.unlock(pc.vc, wordOf(ph), v.resume)
	return err
}

// discardLocked does what discardPiece says to the medium. The chunk is locked.
func (v *Volume) discardLocked(pc piece, ph phys, zero bool) error {
	c := v.component(ph.comp)
	at := c.offset(ph.chunk) + pc.in
	if zero {
		return c.clear(at, pc.n, v.zeros)
	}
	from := (pc.in + v.sector - 1) &^ (v.sector - 1)
	to := (pc.in + pc.n) &^ (v.sector - 1)
	if from < to {
		v.passDown(c, c.offset(ph.chunk)+from, to-from)
	}
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
// discardStep of them, and returns how far it came and how many it were.
func (v *Volume) freeChunks(off, end int64) (next, freed int64, err error) {
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
			return off, 0, err
		}
	}
	return int64(vc) * v.chunk, int64(len(ops)), nil
}
