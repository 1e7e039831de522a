package virstor

import (
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

const (
	drainLimit = 5 * time.Second // how long a snapshot waits for writes that are under way
	leavePages = 64              // pages of a map that a deletion goes through while allocation waits
)

// Snapshot keeps what the volume holds now under the name (ondisk.ErrMapName,
// ErrSnapshotExists): all that was acknowledged before is in it, and nothing that begins
// after it has returned. It is on stable storage then. Writes wait only while those that
// are under way end; when they do not within 5 s the snapshot fails with ErrBusy.
//
// It needs chunks for its map, the first one also for the directory and its reserve
// (ErrNoSpace). A volume that has any is not handed back. Jobs move its chunks with those
// of the volume, but there is none while a job runs (ErrJobRunning).
//
// Drain, map, flush, directory, flush, record, flush: until the record is durable nothing
// names the snapshot, and from the drain on it owns its chunks all the same.
func (h *Head) Snapshot(name string) error { return h.snapshotAs(name, 0) }

// snapshotAs is Snapshot with a GUID; 0: a new one.
func (h *Head) snapshotAs(name string, guid ondisk.GUID) error {
	h.v.job.starting.Lock() // no job begins
	defer h.v.job.starting.Unlock()
	h.v.metaMu.Lock()
	err := h.maySnapshotLocked(name)
	if err == nil {
		err = h.takeSnapshotLocked(name, guid)
	}
	h.v.metaMu.Unlock()
	if err != nil {
		return fmt.Errorf("snapshot %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	h.v.emit(Event{Kind: EventSnapshots})
	return nil
}

// maySnapshotLocked is what speaks against a snapshot of that name. v.job.starting and
// v.metaMu are held.
func (h *Head) maySnapshotLocked(name string) error {
	if err := ondisk.CheckMapName(name); err != nil {
		return err
	}
	if err := h.v.noJobLocked(); err != nil {
		return err
	}
	if err := h.v.mayChangePoolLocked(); err != nil {
		return err
	}
	if _, err := h.snapshotLocked(name); err == nil {
		return ErrSnapshotExists
	}
	if h.v.mapsLocked() >= ondisk.MaxMaps {
		return ErrTooMany
	}
	for _, s := range h.v.pool.snaps {
		if s.damage != nil {
			return s.damage
		}
	}
	return h.v.mapsKnown()
}

// noJobLocked refuses what must not be done beside a job that runs or goes on later.
// v.metaMu is held.
func (v *Volume) noJobLocked() error {
	if j, ok := v.Job(); ok && j.State == JobRunning && !j.DryRun {
		return fmt.Errorf("%w (%s)", ErrJobRunning, j.Kind)
	}
	if t := v.meta.ext.rec.Task.Kind; v.meta.ext.room && t != ondisk.TaskNone {
		return fmt.Errorf("%w (%s, unfinished)", ErrJobRunning, t)
	}
	return nil
}

// mayChangePoolLocked refuses a new directory where there can be none; v.metaMu is held.
func (v *Volume) mayChangePoolLocked() error {
	if err := v.readOnly(); err != nil {
		return err
	}
	for _, d := range [...]deed{deedStartJob, deedChangeMembers} { // what would meet a closing, too
		if err := v.cond.refusal(d); err != nil {
			return err
		}
	}
	if err := v.mayChangeLocked(); err != nil {
		return err
	}
	if v.pool.doubt != nil {
		return v.pool.doubt
	}
	if !v.meta.ext.room {
		return ErrNoExtension
	}
	return nil
}

// takeSnapshotLocked takes and stores a snapshot; guid 0 is a new one. v.metaMu is held.
func (h *Head) takeSnapshotLocked(name string, guid ondisk.GUID) error {
	if guid == 0 {
		guid = ondisk.GUID(h.v.draw())
	}
	frozen, err := h.freeze()
	if err != nil {
		return err
	}
	s := &snapshot{of: h, frozen: frozen, PoolMap: ondisk.PoolMap{
		Kind: ondisk.KindSnapshot, Origin: h.mapID, Name: name, Time: h.v.now(), Size: uint64(h.Size()), GUID: guid,
	}}
	d := h.v.nextDirectory(false)
	s.ID, d.NextMap = d.NextMap, d.NextMap+1
	if err := h.storeSnapshotLocked(s, d); err != nil {
		if h.v.pool.doubt != nil {
			return err // the snapshot may be in force, and owns what it names
		}
		h.v.alloc.PutAll(d.taken)
		h.forget(s.frozen)
		h.v.pool.others.Store(h.v.pool.dir != nil)
		return err
	}
	if h.v.cfg.breaks(breakPendingOwner) {
		s.frozen = h.chunks.Freeze()
		frozen.Remove()
	}
	h.v.setDirectory(&d.Directory)
	h.v.pool.snaps = append(h.v.pool.snaps, s)
	h.v.nameSnapshots()
	if len(d.gone) > 0 {
		h.v.freeUnshared(d.gone)
		h.v.freeSoon()
	}
	return nil
}

// freeze makes a point between writes: those that have begun end first, and until they
// have none begins. What is held for space has not begun.
func (h *Head) freeze() (*chunkmap.Frozen, error) {
	defer h.writes.open(h.v.resume)
	if !h.writes.closeWithin(drainLimit) {
		return nil, ErrBusy
	}
	h.committer.pause()
	defer h.committer.unpause()
	if err := h.refusal(deedAllocate); err != nil {
		return nil, err
	}
	h.v.pool.others.Store(true)
	f := h.chunks.Freeze()
	if h.v.cfg.breaks(breakPendingOwner) {
		for f.Leave(func(uint64, chunkmap.Word) {}) {
		}
	}
	return f, nil
}

// storeSnapshotLocked writes the map of s, and puts d, with s in it, in force. v.metaMu is
// held.
func (h *Head) storeSnapshotLocked(s *snapshot, d *nextDirectory) error {
	if err := h.v.flushAll(); err != nil { // what the map names
		return err
	}
	m, err := h.v.planMap(s, d, func(int) bool { return false }, nil)
	if err != nil {
		return err
	}
	s.stored = m.at
	d.Maps = append(d.Maps, s.PoolMap)
	if err := h.v.planDirectory(d); err != nil {
		return err
	}
	storeMap := func() error { return h.v.storeMap(m) }
	putInForce := func() error { return h.v.storeDirectoryLocked(d) }
	steps := []func() error{storeMap, putInForce}
	if h.v.cfg.breaks(breakDirectoryFirst) {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// putInForceLocked writes the record that names the directory, or none: durably, and into
// both slots, so that a later record that is lost as it is written leaves one that says the
// same. When either write fails nobody knows which directory is in force, or will be then:
// both count as such, and there is no other until the volume is reopened. v.metaMu is held.
func (v *Volume) putInForceLocked(first ondisk.Link) error {
	slots := 2
	if v.cfg.breaks(breakOneRecord) {
		slots = 1
	}
	for range slots {
		if err := v.writeExtensionLocked(func(e *ondisk.Extension) { e.Directory = first }); err != nil {
			v.pool.doubt = fmt.Errorf("%w: %w", ErrUnfinished, err)
			return v.pool.doubt
		}
	}
	return nil
}

// forget takes f out of the volume's maps, and frees what it alone names.
func (h *Head) forget(f *chunkmap.Frozen) {
	for more := true; more; {
		h.committer.pause()
		for i := 0; i < leavePages && more; i++ {
			more = f.Leave(func(vc uint64, w chunkmap.Word) { h.committer.unname(vc, w.Phys()) })
		}
		if !more {
			f.Remove()
		}
		h.committer.unpause()
	}
	h.v.freeSoon()
}

// freeSoon flushes for what was given to the map's ledger.
func (v *Volume) freeSoon() {
	v.component(0).markDirty()
	v.workers.put(&v.flushSoon)
}

// SnapshotAlone is how many chunks the snapshot of that name has alone (ErrNoSnapshot):
// those that come free when it is deleted, beside some for its map. While a snapshot is
// damaged none do.
func (h *Head) SnapshotAlone(name string) (chunks int64, err error) {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	s, err := h.snapshotLocked(name)
	if err != nil || s.frozen == nil {
		return 0, err
	}
	for page := range s.frozen.Pages() {
		h.committer.pause()
		s.frozen.Only(page, func(uint64, chunkmap.Word) { chunks++ })
		h.committer.unpause()
	}
	return chunks, nil
}

// DeleteSnapshot deletes the snapshot of that name (ErrNoSnapshot, ErrSnapshotInUse), on
// stable storage when it returns. What it alone named becomes free soon after. It needs no
// chunk.
func (h *Head) DeleteSnapshot(name string) error {
	h.v.metaMu.Lock()
	err := h.v.mayChangePoolLocked()
	if err == nil {
		err = h.deleteSnapshotLocked(name)
	}
	h.v.metaMu.Unlock()
	h.v.emit(Event{Kind: EventSnapshots}) // who let go of it looks whether it is there yet
	if err != nil {
		return fmt.Errorf("delete %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	return nil
}

// deleteSnapshotLocked is DeleteSnapshot. The record without the snapshot is durable
// before anything is free that it named. v.metaMu is held.
func (h *Head) deleteSnapshotLocked(name string) error {
	s, err := h.snapshotLocked(name)
	if err != nil {
		return err
	}
	if s.views > 0 {
		return ErrSnapshotInUse
	}
	if err := h.v.notClonedLocked(s); err != nil {
		return err
	}
	if h.v.cfg.breaks(breakDeletedEarly) && s.frozen != nil {
		h.forget(s.frozen)
	}
	free, err := h.v.dropSnapshotLocked(s)
	if err != nil {
		return err
	}
	h.v.freeSystem(s, free)
	return nil
}

// dropSnapshotLocked puts a directory without s in force, and gives the system chunks that
// none names any more. v.metaMu is held.
func (v *Volume) dropSnapshotLocked(s *snapshot) (free []alloc.Phys, err error) {
	next, err := v.leaveOutLocked(s.ID)
	if err != nil {
		return nil, err
	}
	v.pool.snaps = slices.DeleteFunc(v.pool.snaps, func(o *snapshot) bool { return o == s })
	v.nameSnapshots()
	return append(s.stored.chunks(), v.adoptLocked(next)...), nil
}

// leaveOutLocked puts a directory without the map of that id in force: none when that was
// the last beside the first volume's. v.metaMu is held.
func (v *Volume) leaveOutLocked(id uint64) (*nextDirectory, error) {
	next := v.nextDirectory(true)
	next.Maps = slices.DeleteFunc(next.Maps, func(m ondisk.PoolMap) bool { return m.ID == id })
	if len(next.Maps) > 1 {
		if err := v.storeNextLocked(next); err != nil {
			return nil, err
		}
	}
	return next, v.putInForceLocked(next.link)
}

// adoptLocked makes a directory of leaveOutLocked, which is in force, the one in memory,
// and gives the system chunks of the directory before that none has any more. v.metaMu is
// held.
func (v *Volume) adoptLocked(next *nextDirectory) (free []alloc.Phys) {
	if old := v.pool.dir; len(next.Maps) == 1 {
		v.setDirectory(nil)
		return next.numbers.allPhys(slices.Concat(old.Own, old.Other, old.Reserve))
	}
	v.setDirectory(&next.Directory)
	if v.cfg.breaks(breakTwinGiven) {
		return slices.Concat(next.gone, next.other)
	}
	return next.gone
}

// storeNextLocked writes a directory that names no more than the one in force, and lets go
// of what was taken for it when that fails. v.metaMu is held.
func (v *Volume) storeNextLocked(next *nextDirectory) error {
	err := v.planDirectory(next)
	if err == nil {
		err = v.storeChain(next.chunks, next.own)
	}
	if err != nil {
		v.alloc.PutAll(next.taken)
	}
	return err
}

// freeSystem frees what a deleted snapshot named, and system chunks, which no record names
// any more. v.metaMu is held.
func (v *Volume) freeSystem(s *snapshot, system []alloc.Phys) {
	v.freeUnshared(system)
	if s.frozen != nil && !v.cfg.breaks(breakDeletedEarly) {
		s.of.forget(s.frozen)
	}
	v.pool.others.Store(v.pool.dir != nil)
	v.barDamaged()
	v.freeSoon()
	v.kick() // writes may have waited for the snapshot to go
}

// freeUnshared frees chunks that no record names any more, but for those of maps that are
// in force. v.metaMu is held.
func (v *Volume) freeUnshared(chunks []alloc.Phys) {
	used := v.mapChunksLocked()
	for _, p := range chunks {
		if !used[p] {
			v.ledger().free(p)
		}
	}
	v.component(0).markDirty() // a flush that has begun does not know of them
}

// mapChunksLocked are the chunks of the maps of snapshots and further volumes. v.metaMu is
// held.
func (v *Volume) mapChunksLocked() map[alloc.Phys]bool {
	used := make(map[alloc.Phys]bool)
	for _, s := range v.pool.snaps {
		for _, p := range s.stored.chunks() {
			used[p] = true
		}
	}
	for _, h := range v.further() {
		for _, p := range h.stored().chunks() {
			used[p] = true
		}
	}
	return used
}
