package virstor

import (
	"bytes"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Reclaim starts a job that frees the chunks of all volumes that hold nothing but zeros. A
// chunk that is written meanwhile stays. One that a snapshot has too is only given up: it
// comes back when that is deleted.
func (v *Volume) Reclaim(opt JobOptions) error {
	task := ondisk.Task{Kind: ondisk.TaskReclaim, Arg: [8]uint64{uint64(opt.Rate)}}
	return v.startJob(jobReclaim, task, opt, v.reclaim)
}

// reclaimed counts chunks of zeros.
type reclaimed struct {
	found, freed, given int64 // that nobody else has; that are free now; that are given up
}

func (v *Volume) reclaim(j *jobHandle) error {
	heads := v.heads()
	places := make([][]mapping, len(heads))
	var total int64
	for i, h := range heads {
		places[i] = h.chunksWhere(func(alloc.Phys) bool { return true })
		total += int64(len(places[i]))
	}
	j.total(total * v.chunk)
	buf := make([]byte, min(moveBuffer, v.chunk))
	var sum reclaimed
	for i, h := range heads {
		for _, pl := range places[i] {
			was := sum.freed
			if err := h.reclaimChunk(j.opt.DryRun, pl, buf, &sum); err != nil {
				return err
			}
			if err := j.step(v.chunk, sum.freed-was); err != nil {
				return err
			}
		}
	}
	if j.opt.DryRun {
		j.result("%d chunks, %d bytes, would come back", sum.found, sum.found*v.chunk)
		return nil
	}
	j.result("%d chunks, %d bytes, came back", sum.freed, sum.freed*v.chunk)
	if sum.given > 0 {
		j.result("%d chunks, %d bytes, came back; %d more are given up, and come back when the snapshots are deleted that have them", sum.freed, sum.freed*v.chunk, sum.given)
	}
	return v.waitFreed()
}

// reclaimChunk gives a chunk up that holds nothing but zeros, and counts it; dry: it only
// counts.
func (h *Head) reclaimChunk(dry bool, pl mapping, buf []byte, sum *reclaimed) error {
	if !h.writes.tryEnter() {
		return nil // it is being deleted
	}
	defer h.writes.leave()
	zero, err := h.chunkIsZero(pl, buf)
	if err != nil || !zero {
		return err
	}
	shared := h.v.isNamed(pl)
	if !shared {
		sum.found++
	}
	if dry {
		return nil
	}
	freed, err := h.freeIfZero(pl.vc, buf)
	switch {
	case err != nil || !freed:
		return err
	case shared:
		sum.given++
	default:
		sum.freed++
	}
	return nil
}

// chunkIsZero looks at a chunk without taking it; the answer may be old.
func (h *Head) chunkIsZero(pl mapping, buf []byte) (bool, error) {
	ph, ok := h.chunks.PinWait(pl.vc)
	if !ok {
		return false, nil
	}
	defer h.chunks.Unpin(pl.vc)
	return h.v.readsZero(ph, buf)
}

// freeIfZero takes the chunk, looks again, and frees it.
func (h *Head) freeIfZero(vc uint64, buf []byte) (bool, error) {
	ph, ok := h.chunks.Lock(vc)
	if !ok {
		return false, nil
	}
	zero, err := h.v.readsZero(ph, buf)
	if err != nil || !zero {
		h.chunks.Unlock(vc, chunkmap.WordOf(ph))
		return false, err
	}
	if err := h.committer.commit([]mapOp{{vc: vc, old: ph}}); err != nil {
		return false, err
	}
	return true, nil
}

// readsZero reports whether a physical chunk holds only zeros.
func (v *Volume) readsZero(ph alloc.Phys, buf []byte) (bool, error) {
	c := v.component(ph.Comp)
	base := c.offset(ph.Chunk)
	if base+v.chunk > c.guard {
		return false, nil
	}
	at, end := int64(0), v.chunk
	if h, ok := c.prov().(geomlib.HoleFinder); ok {
		start, _, err := h.NextData(base, base+v.chunk)
		if err == nil {
			at = (start - base) &^ (v.sector - 1)
		}
	}
	for at < end {
		b := buf[:min(int64(len(buf)), end-at)]
		if err := c.readAt(b, base+at); err != nil {
			return false, err
		}
		if !bytes.Equal(b, v.zeros[:len(b)]) {
			return false, nil
		}
		at += int64(len(b))
	}
	return true, nil
}
