package virstor

import (
	"bytes"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
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
