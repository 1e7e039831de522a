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
func (h *Head) discard(r *Request, block bool) {
	r.req.discards = true
	off, end := r.Offset+r.req.progress, r.Offset+r.Length
	if off >= end || h.chunks.NextAllocated(uint64(off/h.v.chunk), uint64((end-1)/h.v.chunk)+1) > uint64((end-1)/h.v.chunk) {
		h.finishDiscard(r, block)
		return
	}
	if r.Op == OpDelete && h.v.cfg.Discard == DiscardOff {
		h.finish(r, nil)
		return
	}
	if !block {
		h.v.workers.put(r)
		return
	}
	if !h.v.moving.enter(r) {
		return
	}
	waits, vc, err := h.discardAll(r)
	h.v.moving.leave()
	switch {
	case err != nil:
		h.writeFailed(r, err)
	case r.req.own:
		h.committer.put(r)
	case waits && h.park(vc, r):
	case waits:
		h.v.workers.put(r)
	default:
		h.finishDiscard(r, block)
	}
}

// discardAll does what is left of a discard. With waits it came to a chunk,
// vc, that somebody else has to himself.
func (h *Head) discardAll(r *Request) (waits bool, vc uint64, err error) {
	off, to := h.aheadOf(r, r.Offset+r.req.progress)
	for off < to {
		next := h.chunks.NextAllocated(uint64(off/h.v.chunk), uint64((to-1)/h.v.chunk)+1)
		off = max(off, int64(next)*h.v.chunk)
		if off >= to {
			off, to = h.aheadOf(r, to)
			continue
		}
		pc := h.v.pieceAt(off, to)
		switch {
		case pc.n == h.v.chunk && h.v.cfg.Discard == DiscardOn:
			off, _, waits, err = h.freeChunks(off, to, h.chunks.TryLock)
		default:
			var state chunkmap.State
			switch state, err = h.discardPiece(pc, r.Op != OpDelete); state {
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
			return true, uint64(off / h.v.chunk), nil
		}
	}
	return false, 0, nil
}

// aheadOf is r.ahead: also a discard that was held leaves alone what was written later.
func (h *Head) aheadOf(r *Request, off int64) (from, to int64) {
	if h.v.cfg.breaks(breakDiscardsLater) {
		return off, r.Offset + r.Length
	}
	return r.ahead(off)
}

// PassesDiscards reports whether discards of the volume reach its components.
func (h *Head) PassesDiscards() bool { return !h.v.cfg.ReadOnly && h.v.cfg.Discard != DiscardOff }

// finishDiscard completes a discard all of which is done. With FUA that takes a
// flush even where nothing was allocated: what freed it may not be durable.
//
// While the volume is degraded, a map sector may give back after a crash what
// memory says is not allocated. Zeros cannot be promised there.
func (h *Head) finishDiscard(r *Request, block bool) {
	switch {
	case h.refusal(deedAllocate) != nil && r.Op != OpDelete && h.unallocatedIn(r.Offset, r.Offset+r.Length):
		h.finish(r, fmt.Errorf("%s of %d bytes at %d of %s: %w", r.Op, r.Length, r.Offset, h.Name(), ErrDegraded))
	case r.Flags&FUA == 0:
		h.finish(r, nil)
	case block || h.v.allClean():
		h.finish(r, h.v.flushAll())
	default:
		h.v.workers.put(r)
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
func (h *Head) discardPiece(pc piece, zero bool) (chunkmap.State, error) {
	if zero && !h.v.aligned(int64(pc.vc)*h.v.chunk+pc.in, pc.n) {
		return h.writeLocked(pc, nil)
	}
	ph, state := h.chunks.TryLock(pc.vc)
	if state != chunkmap.Pinned {
		return state, nil
	}
	shared := h.isShared(pc.vc) && !h.v.cfg.breaks(breakSharedDiscard)
	if shared && zero {
		h.chunks.Unlock(pc.vc, chunkmap.WordOf(ph))
		return chunkmap.Shared, nil
	}
	err := h.gaveUp()
	if err == nil && !shared {
		err = h.v.discardLocked(pc, ph, zero)
	}
	if err == nil && h.v.cfg.Discard == DiscardOn && h.partial.discarded(pc.vc, pc.in, pc.n) {
		return chunkmap.Pinned, h.committer.commit([]mapOp{{vc: pc.vc, old: ph}})
	}
	h.chunks.Unlock(pc.vc, chunkmap.WordOf(ph))
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
	err := c.maySend()
	if err == nil {
		err = c.prov().Delete(off, n)
		c.markDirty()
	}
	if err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		v.log.Debug("delete not passed down", "component", c.name(), "offset", off, "length", n, "error", err)
	}
}

// freeChunks unmaps the allocated chunks that lie wholly in [off, end), up to
// discardStep of them, and returns how far it came and how many it were. take is
// one of chunkmap.Map's. waits: it came no further than off, whose chunk is busy.
func (h *Head) freeChunks(off, end int64, take func(uint64) (alloc.Phys, chunkmap.State)) (next, freed int64, waits bool, err error) {
	var ops []mapOp
	limit := uint64(end / h.v.chunk)
	vc := uint64(off / h.v.chunk)
	for len(ops) < discardStep {
		vc = h.chunks.NextAllocated(vc, limit)
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
		if err := h.committer.commit(ops); err != nil {
			return off, 0, false, err
		}
	}
	return int64(vc) * h.v.chunk, int64(len(ops)), waits, nil
}
