package virstor

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// discardStep is how many chunks one commit frees, so that a discard of a
// whole volume neither holds all its chunks nor starves other commits.
const discardStep = 128

// discard frees the chunks that r covers. What r covers of other chunks is
// written with zeros for OpWriteZeroes, and passed down for OpDelete.
//
// It needs no chunk, but room below a component where the storage of one is full: to
// write zeros into a hole, or to make one. It is held for that as writes are.
func (v *Volume) discard(r *Request, block bool) {
	r.req.discards = true
	off, end := r.Offset+r.req.progress, r.Offset+r.Length
	if off >= end || v.chunks.NextAllocated(uint64(off/v.chunk), uint64((end-1)/v.chunk)+1) > uint64((end-1)/v.chunk) {
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
	if !v.moving.enter(r) {
		return
	}
	waits, vc, err := v.discardAll(r)
	v.moving.leave()
	switch {
	case err != nil:
		v.writeFailed(r, err)
	case r.req.own:
		v.committer.put(r)
	case waits && v.park(vc, r):
	case waits:
		v.workers.put(r)
	default:
		v.finishDiscard(r, block)
	}
}

// discardAll does what is left of a discard. With waits it came to a chunk,
// vc, that somebody else has to himself.
func (v *Volume) discardAll(r *Request) (waits bool, vc uint64, err error) {
	off, to := v.aheadOf(r, r.Offset+r.req.progress)
	for off < to {
		next := v.chunks.NextAllocated(uint64(off/v.chunk), uint64((to-1)/v.chunk)+1)
		off = max(off, int64(next)*v.chunk)
		if off >= to {
			off, to = v.aheadOf(r, to)
			continue
		}
		pc := v.pieceAt(off, to)
		switch {
		case pc.n == v.chunk && v.cfg.Discard == DiscardOn:
			off, _, waits, err = v.freeChunks(off, to, v.chunks.TryLock)
		default:
			var state chunkmap.State
			switch state, err = v.discardPiece(pc, r.Op != OpDelete); state {
			case chunkmap.Busy:
				waits = true
			case chunkmap.Shared:
				r.req.progress, r.req.own = off-r.Offset, true
				return false, 0, nil
			default:
				off += pc.n
			}
		}
		if err != nil {
			return false, 0, err
		}
		r.req.progress = off - r.Offset
		if waits {
			return true, uint64(off / v.chunk), nil
		}
	}
	return false, 0, nil
}

// aheadOf is r.ahead: also a discard that was held leaves alone what was written later.
func (v *Volume) aheadOf(r *Request, off int64) (from, to int64) {
	if v.cfg.breaks(breakDiscardsLater) {
		return off, r.Offset + r.Length
	}
	return r.ahead(off)
}

// PassesDiscards reports whether discards of the volume reach its components.
func (v *Volume) PassesDiscards() bool { return !v.cfg.ReadOnly && v.cfg.Discard != DiscardOff }

// finishDiscard completes a discard all of which is done. With FUA that takes a
// flush even where nothing was allocated: what freed it may not be durable.
//
// While the volume is degraded, a map sector may give back after a crash what
// memory says is not allocated. Zeros cannot be promised there.
func (v *Volume) finishDiscard(r *Request, block bool) {
	switch {
	case !v.cond.allows(deedAllocate) && r.Op != OpDelete && v.unallocatedIn(r.Offset, r.Offset+r.Length):
		v.finish(r, fmt.Errorf("%s of %d bytes at %d of %s: %w", r.Op, r.Length, r.Offset, v.name, ErrDegraded))
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
// when nothing of it is left. To one that a snapshot may name nothing is done: Shared
// tells that zeros need a copy first, and what is not needed is only remembered.
//
// It has the chunk to itself: a write that was acknowledged while the device
// still works on the delete must not be lost to it.
// busy: somebody else has it, and nothing was done.
func (v *Volume) discardPiece(pc piece, zero bool) (chunkmap.State, error) {
	if zero && !v.aligned(int64(pc.vc)*v.chunk+pc.in, pc.n) {
		return v.writeLocked(pc, nil)
	}
	ph, state := v.chunks.TryLock(pc.vc)
	if state != chunkmap.Pinned {
		return state, nil
	}
	shared := v.isShared(pc.vc) && !v.cfg.breaks(breakSharedDiscard)
	if shared && zero {
		v.chunks.Unlock(pc.vc, chunkmap.WordOf(ph))
		return chunkmap.Shared, nil
	}
	err := v.gaveUp()
	if err == nil && !shared {
		err = v.discardLocked(pc, ph, zero)
	}
	if err == nil && v.cfg.Discard == DiscardOn && v.partial.discarded(pc.vc, pc.in, pc.n) {
		return chunkmap.Pinned, v.committer.commit([]mapOp{{vc: pc.vc, old: ph}})
	}
	v.chunks.Unlock(pc.vc, chunkmap.WordOf(ph))
	return chunkmap.Pinned, err
}

// discardLocked does what discardPiece says to the medium. The chunk is locked.
func (v *Volume) discardLocked(pc piece, ph alloc.Phys, zero bool) error {
	c := v.component(ph.Comp)
	at := c.offset(ph.Chunk) + pc.in
	if zero {
		return c.clear(at, pc.n, v.zeros)
	}
	from := (pc.in + v.sector - 1) &^ (v.sector - 1)
	to := (pc.in + pc.n) &^ (v.sector - 1)
	if from < to {
		v.passDown(c, c.offset(ph.Chunk)+from, to-from)
	}
	return nil
}

// passDown tells a device that a range is not needed. That is advice: a device
// that cannot take it, or fails at it, loses nothing.
func (v *Volume) passDown(c *component, off, n int64) {
	if off+n > c.guard {
		n = c.guard - off
	}
	err := c.prov().Delete(off, n)
	c.markDirty()
	if err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		v.log.Debug("delete not passed down", "component", c.name(), "offset", off, "length", n, "error", err)
	}
}

// freeChunks unmaps the allocated chunks that lie wholly in [off, end), up to
// discardStep of them, and returns how far it came and how many it were. take is
// one of chunkmap.Map's. waits: it came no further than off, whose chunk is busy.
func (v *Volume) freeChunks(off, end int64, take func(uint64) (alloc.Phys, chunkmap.State)) (next, freed int64, waits bool, err error) {
	var ops []mapOp
	limit := uint64(end / v.chunk)
	vc := uint64(off / v.chunk)
	for len(ops) < discardStep {
		vc = v.chunks.NextAllocated(vc, limit)
		if vc >= limit {
			break
		}
		ph, state := take(vc)
		if state == chunkmap.Busy {
			waits = len(ops) == 0
			break
		}
		if state == chunkmap.Pinned {
			ops = append(ops, mapOp{vc: vc, old: ph})
		}
		vc++
	}
	if len(ops) > 0 {
		if err := v.committer.commit(ops); err != nil {
			return off, 0, false, err
		}
	}
	return int64(vc) * v.chunk, int64(len(ops)), waits, nil
}
