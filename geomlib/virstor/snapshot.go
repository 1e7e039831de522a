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
		err = h.v.takeSnapshotsLocked([]*Head{h}, name, guid)
	}
	h.v.metaMu.Unlock()
	if err != nil {
		return fmt.Errorf("snapshot %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	h.v.emit(Event{Kind: EventSnapshots})
	return nil
}

// SnapshotAll keeps under the name what every volume of the pool holds, all at one point, as
// Snapshot does of one: all of them are taken, or none.
func (v *Volume) SnapshotAll(name string) error {
	v.job.starting.Lock() // no job begins
	defer v.job.starting.Unlock()
	v.metaMu.Lock()
	err := v.maySnapshotAllLocked(name)
	heads := v.heads()
	if v.cfg.breaks(breakOnePoint) {
		for ; err == nil && len(heads) > 1; heads = heads[1:] {
			err = v.takeSnapshotsLocked(heads[:1], name, 0)
		}
	}
	if err == nil {
		err = v.takeSnapshotsLocked(heads, name, 0)
	}
	v.metaMu.Unlock()
	if err != nil {
		return fmt.Errorf("snapshot all volumes of %s@%s: %w", v.name, ondisk.Printable(name), err)
	}
	v.emit(Event{Kind: EventSnapshots})
	return nil
}

// maySnapshotAllLocked is what speaks against snapshots of that name of all volumes.
// v.job.starting and v.metaMu are held.
func (v *Volume) maySnapshotAllLocked(name string) error {
	for _, h := range v.heads() {
		if err := h.maySnapshotLocked(name); err != nil {
			return fmt.Errorf("%s: %w", h.Name(), err)
		}
	}
	if v.mapsLocked()+len(v.heads()) > ondisk.MaxMaps {
		return ErrTooMany
	}
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

// couldChangePoolLocked is mayChangePoolLocked. With dry it is only asked what could be done,
// of a pool that was opened to be read, too. v.metaMu is held.
func (v *Volume) couldChangePoolLocked(dry bool) error {
	if dry && v.cfg.ReadOnly {
		return nil
	}
	return v.mayChangePoolLocked()
}

// takeSnapshotsLocked takes and stores snapshots of heads at one point, which one record puts
// in force; guid, of one, 0 is a new one. v.metaMu is held.
func (v *Volume) takeSnapshotsLocked(heads []*Head, name string, guid ondisk.GUID) error {
	all, err := v.freeze(heads)
	if err != nil {
		return err
	}
	d := v.nextDirectory(false)
	var taken []*snapshot
	for i, h := range heads {
		s := &snapshot{of: h, frozen: all[i], PoolMap: ondisk.PoolMap{
			Kind: ondisk.KindSnapshot, Origin: h.mapID, Name: name, Time: v.now(), Size: uint64(h.Size()), GUID: guid,
		}}
		if guid == 0 {
			s.GUID = ondisk.GUID(v.draw())
		}
		s.ID, d.NextMap = d.NextMap, d.NextMap+1
		taken = append(taken, s)
	}
	if err := v.storeSnapshotsLocked(taken, d); err != nil {
		if v.pool.doubt != nil {
			return err // the snapshots may be in force, and own what they name
		}
		v.alloc.PutAll(d.taken)
		for _, s := range taken {
			s.of.forget(s.frozen)
		}
		v.pool.others.Store(v.pool.dir != nil)
		return err
	}
	if v.cfg.breaks(breakPendingOwner) {
		for _, s := range taken {
			was := s.frozen
			s.frozen = s.of.chunks.Freeze()
			was.Remove()
		}
	}
	v.setDirectory(&d.Directory)
	v.pool.snaps = append(v.pool.snaps, taken...)
	v.nameSnapshots()
	if len(d.gone) > 0 {
		v.freeUnshared(d.gone)
		v.freeSoon()
	}
	return nil
}

// freeze makes a point between writes, of all heads the same one: those that have begun end
// first, and until they have none begins. What is held for space has not begun.
func (v *Volume) freeze(heads []*Head) (all []*chunkmap.Frozen, err error) {
	end := time.Now().Add(drainLimit)
	for _, h := range heads {
		defer h.writes.open(v.resume)
		if !h.writes.closeWithin(max(time.Until(end), 1)) {
			return nil, ErrBusy
		}
	}
	for _, h := range heads {
		h.committer.pause()
		defer h.committer.unpause()
		if err := h.refusal(deedAllocate); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name(), err)
		}
	}
	v.pool.others.Store(true)
	for _, h := range heads {
		f := h.chunks.Freeze()
		if v.cfg.breaks(breakPendingOwner) {
			for f.Leave(func(uint64, chunkmap.Word) {}) {
			}
		}
		all = append(all, f)
	}
	return all, nil
}

// storeSnapshotsLocked writes the maps of snapshots, and puts d, with them in it, in force.
// v.metaMu is held.
func (v *Volume) storeSnapshotsLocked(taken []*snapshot, d *nextDirectory) error {
	if err := v.flushAll(); err != nil { // what the maps name
		return err
	}
	var planned []*plannedMap
	for _, s := range taken {
		m, err := v.planMap(s, d, func(int) bool { return false }, nil)
		if err != nil {
			return err
		}
		s.stored = m.at
		planned = append(planned, m)
		d.Maps = append(d.Maps, s.PoolMap)
	}
	if err := v.planDirectory(d); err != nil {
		return err
	}
	storeMaps := func() error {
		for _, m := range planned {
			if err := v.storeMap(m); err != nil {
				return err
			}
		}
		return nil
	}
	return v.storeInForceLocked(storeMaps, d, breakDirectoryFirst)
}

// storeInForceLocked has storeMaps write maps, and then puts d, which names them, in force;
// with the rule broken it is the other way round. v.metaMu is held.
func (v *Volume) storeInForceLocked(storeMaps func() error, d *nextDirectory, broken rule) error {
	steps := []func() error{storeMaps, func() error { return v.storeDirectoryLocked(d) }}
	if v.cfg.breaks(broken) {
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
			if v.cfg.breaks(breakDoubtWritten) {
				return nil
			}
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

// MayDeleteSnapshot tells how many chunks the snapshot of that name has alone, which come free
// when it is deleted, beside some for its map, or why it cannot be (ErrNoSnapshot, ErrCloned).
// While a snapshot is damaged none do. Who reads it is not looked at.
func (h *Head) MayDeleteSnapshot(name string) (chunks int64, err error) {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	s, err := h.snapshotLocked(name)
	if err != nil {
		return 0, err
	}
	if err := h.v.notClonedLocked(s); err != nil {
		return 0, fmt.Errorf("%s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	if s.frozen == nil {
		return 0, nil
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
