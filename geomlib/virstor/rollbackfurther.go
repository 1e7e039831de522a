package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// RollbackVolume gives the further volume of that name the map and the size that it had when
// a snapshot of it was taken (ErrNoVolume, ErrNoSnapshot, ErrDamaged, ErrVolumeInUse,
// ErrLargerSnapshots, ErrJobRunning). The snapshot stays, and so do all others. What only the
// volume named becomes free soon after. Without force it fails with ErrWouldLose when the
// volume holds anything else than the snapshot. It needs no chunk that writes could have.
//
// Map, flush, directory, flush, record: a crash leaves the volume as it was, or rolled back.
func (v *Volume) RollbackVolume(name, snapshot string, force bool) error {
	v.job.starting.Lock() // no job begins
	defer v.job.starting.Unlock()
	v.metaMu.Lock()
	err := v.rollbackVolumeLocked(name, snapshot, force)
	v.metaMu.Unlock()
	if err != nil {
		return rollbackError(v.name+"/"+ondisk.Printable(name), snapshot, err)
	}
	v.log.Info("the volume is what it was at a snapshot", "volume", name, "snapshot", snapshot)
	v.emit(Event{Kind: EventSnapshots})
	return nil
}

// MayRollbackVolume tells what RollbackVolume would take back, or why it cannot be done. Who
// uses the volume is not looked at.
func (v *Volume) MayRollbackVolume(name, to string) (Loss, error) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	h, err := v.furtherLocked(name)
	if err == nil {
		var s *snapshot
		if s, err = h.mayRollbackLocked(to); err == nil {
			return h.lossLocked(s), nil
		}
	}
	return Loss{}, rollbackError(v.name+"/"+ondisk.Printable(name), to, err)
}

// rollbackVolumeLocked is RollbackVolume. v.job.starting and v.metaMu are held.
func (v *Volume) rollbackVolumeLocked(name, to string, force bool) error {
	h, err := v.idleLocked(name)
	if err != nil {
		return err
	}
	s, err := h.mayRollbackLocked(to)
	if err != nil {
		return err
	}
	h.FailHeld() // nobody waits for them
	defer h.writes.open(v.resume)
	if !h.writes.closeWithin(drainLimit) {
		return ErrBusy
	}
	if c := h.lossLocked(s); c == (Loss{}) {
		return nil
	} else if !force {
		return fmt.Errorf("%w: %d chunks", ErrWouldLose, c.Chunks)
	}
	h.committer.pause()
	defer h.committer.unpause()
	return h.rollbackLocked(s)
}

// rollbackLocked writes the map of s as that of h, which nobody uses, and puts it in force.
// v.metaMu is held, and the committer is paused.
func (h *Head) rollbackLocked(s *snapshot) error {
	v := h.v
	d := v.nextDirectory(true)
	plan, err := v.planVolume(d, h.mapID, s.Size, nil)
	if err == nil {
		plan.words = s.frozen
		if v.cfg.breaks(breakBackEarly) {
			h.restore(s)
		}
		err = v.storeMapLocked(plan, d)
	}
	if err != nil {
		if v.pool.doubt != nil {
			h.unsure = true
		} else {
			v.alloc.PutAll(d.taken)
		}
		return err
	}
	free := append(h.stored().chunks(), d.gone...)
	h.lies.Store(&plan.at)
	h.size.Store(int64(s.Size))
	h.chunks.Resize(h.entries())
	h.restore(s)
	v.setDirectory(&d.Directory)
	v.freeUnshared(free)
	v.freeSoon()
	v.kick()
	return nil
}

// storeMapLocked writes a map of a further volume, and puts d, which names it, in force.
// v.metaMu is held.
func (v *Volume) storeMapLocked(plan *plannedMap, d *nextDirectory) error {
	return v.storeInForceLocked(func() error { return v.storeMap(plan) }, d, breakBackRecord)
}

// restore makes the map in memory that of s, and frees what it alone named. Nobody uses the
// volume, and the committer is paused.
func (h *Head) restore(s *snapshot) {
	free := h.v.ledger().free
	var gone []mapping
	h.partial.forgetAll()
	h.allocated.Store(int64(h.chunks.Restore(s.frozen, func(vc uint64, was chunkmap.Word) {
		if was.Allocated() {
			gone = append(gone, mapping{vc, was.Phys()})
		}
	})))
	for _, m := range gone {
		if !h.chunks.IsNamed(m.vc, chunkmap.WordOf(m.at)) {
			free(m.at)
		}
	}
}
