package virstor

import (
	"bytes"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Reclaim starts a job that frees the chunks that hold nothing but zeros. A
// chunk that is written meanwhile stays. One that a snapshot has too is only given up: it
// comes back when that is deleted.
func (v *Volume) Reclaim(opt JobOptions) error {
	task := ondisk.Task{Kind: ondisk.TaskReclaim, Arg: [8]uint64{uint64(opt.Rate)}}
	return v.startJob(jobReclaim, task, opt, v.reclaim)
}

func (v *Volume) reclaim(j *jobHandle) error {
	places := v.chunksWhere(func(alloc.Phys) bool { return true })
	j.total(int64(len(places)) * v.chunk)
	buf := make([]byte, min(moveBuffer, v.chunk))
	var found, freed, given int64
	for _, pl := range places {
		zero, err := v.chunkIsZero(pl, buf)
		if err != nil {
			return err
		}
		now := int64(0)
		shared := v.isNamed(pl)
		if zero && !shared {
			found++
		}
		if zero && !j.opt.DryRun {
			ok, err := v.freeIfZero(pl.vc, buf)
			switch {
			case err != nil:
				return err
			case ok && shared:
				given++
			case ok:
				now = 1
			}
		}
		freed += now
		if err := j.step(v.chunk, now); err != nil {
			return err
		}
	}
	if j.opt.DryRun {
		j.result("%d chunks, %d bytes, would come back", found, found*v.chunk)
		return nil
	}
	j.result("%d chunks, %d bytes, came back", freed, freed*v.chunk)
	if given > 0 {
		j.result("%d chunks, %d bytes, came back; %d more are given up, and come back when the snapshots are deleted that have them", freed, freed*v.chunk, given)
	}
	return v.waitFreed()
}

// chunkIsZero looks at a chunk without taking it; the answer may be old.
func (v *Volume) chunkIsZero(pl mapping, buf []byte) (bool, error) {
	ph, ok := v.chunks.PinWait(pl.vc)
	if !ok {
		return false, nil
	}
	defer v.chunks.Unpin(pl.vc)
	return v.readsZero(ph, buf)
}

// freeIfZero takes the chunk, looks again, and frees it.
func (v *Volume) freeIfZero(vc uint64, buf []byte) (bool, error) {
	ph, ok := v.chunks.Lock(vc)
	if !ok {
		return false, nil
	}
	zero, err := v.readsZero(ph, buf)
	if err != nil || !zero {
		v.chunks.Unlock(vc, chunkmap.WordOf(ph))
		return false, err
	}
	if err := v.committer.commit([]mapOp{{vc: vc, old: ph}}); err != nil {
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
