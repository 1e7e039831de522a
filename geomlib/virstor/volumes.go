package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Errors about the volumes of a pool beside the first. They come wrapped with what was
// attempted.
var (
	// ErrNoVolume: the pool has no volume of that name.
	ErrNoVolume = errors.New("no such volume")
	// ErrVolumeExists: the pool has a volume of that name.
	ErrVolumeExists = errors.New("there is a volume of that name")
	// ErrVolumeInUse: the volume is being used.
	ErrVolumeInUse = errors.New("the volume is in use")
	// ErrHasSnapshots: the volume has snapshots.
	ErrHasSnapshots = errors.New("it has snapshots, which would be lost, too")
	// ErrCloned: a volume is a clone of the snapshot, and has chunks in common with it.
	ErrCloned = errors.New("it has clones, which need it")
)

// VolumeInfo is a volume of a pool beside the first.
type VolumeInfo struct {
	Name string // what follows the slash
	ID   uint64
	Time int64 // when it was made, seconds since 1970
	Size int64 // bytes
	// Allocated is how many bytes of chunks it names, those included that it has in
	// common with what it is a clone of.
	Allocated int64
	// Origin is the snapshot that it is a clone of, with its volume's name before the "@", but
	// for the first one's; or "".
	Origin string
	// Quota is how many bytes of chunks it may have; 0: no limit.
	Quota int64
	Held  HeldStatus
	Users int // who has it open
	// Degraded: a sector of its map could not be written.
	Degraded bool
	// Err, if not nil, is why it cannot be used: its map is damaged.
	Err error
}

// Volumes are those of the pool beside the first, the oldest first. It takes no lock: the
// figures are read one after the other.
func (v *Volume) Volumes() []VolumeInfo {
	var infos []VolumeInfo
	for _, h := range v.further() {
		i := VolumeInfo{
			Name: h.ownName(), ID: h.mapID, Time: h.made, Size: h.Size(), Allocated: h.allocated.Load() * v.chunk, Quota: h.quota.Load(),
			Held: h.held.status(), Users: int(h.users.Load()), Degraded: h.ill.is(stateDegraded), Err: h.damage,
		}
		if from := h.from.Load(); from != nil {
			i.Origin = *from
		}
		infos = append(infos, i)
	}
	return infos
}

// furtherNames are the names of the volumes beside the first, or the first few.
func (v *Volume) furtherNames() string {
	var names []string
	for _, h := range v.further() {
		names = append(names, h.Name())
	}
	return firstOf(names)
}

// headLocked is the volume of that name; "" is the first one. v.metaMu is held.
func (v *Volume) headLocked(name string) (*Head, error) {
	for _, h := range v.heads() {
		if h.ownName() == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%s/%s: %w", v.name, ondisk.Printable(name), ErrNoVolume)
}

// OpenVolume opens the volume of that name, what follows the slash (ErrNoVolume, and
// ErrDamaged for one whose map cannot be read); "" is the first one. While it is open it
// cannot be deleted. Who has opened it calls Release once.
func (v *Volume) OpenVolume(name string) (*Head, error) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	h, err := v.headLocked(name)
	if err == nil {
		err = h.damage
	}
	if err == nil && h.unsure {
		err = v.pool.doubt
	}
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	h.users.Add(1)
	return h, nil
}

// Release ends OpenVolume. Nothing is submitted any more; who deletes the volume waits for
// what is still at work.
func (h *Head) Release() {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	h.users.Add(-1)
}

// anyDegraded reports whether a sector of the map of any volume may hold what memory does
// not.
func (v *Volume) anyDegraded() bool {
	return slices.ContainsFunc(v.heads(), func(h *Head) bool { return h.ill.is(stateDegraded) })
}

// notClonedLocked refuses to delete a snapshot that a volume is a clone of. v.metaMu is held.
func (v *Volume) notClonedLocked(s *snapshot) error {
	var clones []string
	for _, h := range v.further() {
		if h.origin == s {
			clones = append(clones, h.Name())
		}
	}
	if clones == nil {
		return nil
	}
	return fmt.Errorf("%w (%s)", ErrCloned, firstOf(clones))
}

// VolumePlan is what making a volume takes.
type VolumePlan struct {
	Size      int64 // that it has then, bytes
	MapChunks int64 // that are taken at once, for its map
}

// CreateVolume makes a volume of that name, what follows the slash, that reads as zeros
// (ondisk.ErrMapName, ErrVolumeExists, ErrTooMany, ErrRequest), on stable storage when it
// returns; dry only tells what it would take. size, in bytes, is rounded up to whole chunks.
// It needs chunks for its map, and the first one also for the directory and its reserve
// (ErrNoSpace). A volume that has others beside it is not handed back. There is none while a
// job runs (ErrJobRunning).
//
// Map, flush, directory, flush, record: until the record is durable nothing names it.
func (v *Volume) CreateVolume(name string, size int64, dry bool) (VolumePlan, error) {
	return v.CreateLimited(name, size, 0, dry)
}

// CreateLimited is CreateVolume of one that has a quota (SetQuota).
func (v *Volume) CreateLimited(name string, size, quota int64, dry bool) (VolumePlan, error) {
	plan, err := v.makeVolume(name, quota, dry, func() (uint64, *snapshot, error) {
		whole, err := v.furtherSize(size)
		return uint64(whole), nil, errors.Join(err, checkQuota(quota))
	})
	if err != nil {
		err = fmt.Errorf("create %s/%s: %w", v.name, ondisk.Printable(name), err)
	}
	return plan, err
}

// CloneSnapshot makes a volume that begins as a snapshot of this one, as CreateVolume does
// (ErrNoSnapshot, ErrDamaged). The two have chunks in common until either is written to; the
// snapshot cannot be deleted as long as the clone is there.
func (h *Head) CloneSnapshot(snap, name string, dry bool) (VolumePlan, error) {
	plan, err := h.v.makeVolume(name, 0, dry, func() (uint64, *snapshot, error) {
		s, err := h.snapshotLocked(snap)
		if err == nil {
			err = s.damage
		}
		if err != nil {
			return 0, nil, err
		}
		return s.Size, s, nil
	})
	if err != nil {
		err = fmt.Errorf("clone %s@%s as %s/%s: %w", h.Name(), ondisk.Printable(snap), h.v.name, ondisk.Printable(name), err)
	}
	return plan, err
}

// makeVolume makes a volume of what from, which is called with v.metaMu held, says.
func (v *Volume) makeVolume(name string, quota int64, dry bool, from func() (size uint64, of *snapshot, err error)) (plan VolumePlan, err error) {
	v.job.starting.Lock() // no job begins
	defer v.job.starting.Unlock()
	v.metaMu.Lock()
	if err = v.mayNameLocked(name); err == nil && (!v.cfg.ReadOnly || !dry) {
		err = v.mayMakeVolumeLocked()
	}
	if err == nil {
		var size uint64
		var of *snapshot
		if size, of, err = from(); err == nil {
			_, parts := ondisk.MapLength(size, uint32(v.chunk))
			plan = VolumePlan{int64(size), int64(parts) + 1}
			if !dry {
				err = v.makeVolumeLocked(name, size, quota, of)
			}
		}
	}
	v.metaMu.Unlock()
	if err == nil && !dry {
		v.emit(Event{Kind: EventSnapshots})
	}
	return plan, err
}

// furtherSize is size, of a further volume, rounded up to whole chunks (ErrRequest).
func (v *Volume) furtherSize(size int64) (whole int64, err error) {
	whole = (size + v.chunk - 1) / v.chunk * v.chunk
	if size <= 0 || whole < size {
		return 0, refuse(ErrRequest, "a volume of %d bytes", size)
	}
	if _, parts := ondisk.MapLength(uint64(whole), uint32(v.chunk)); parts > ondisk.MaxReserved {
		return 0, refuse(ErrRequest, "a map of %d chunks, at most %d are possible", parts, ondisk.MaxReserved)
	}
	return whole, nil
}

// mayNameLocked is what speaks against a further volume of that name. v.metaMu is held.
func (v *Volume) mayNameLocked(name string) error {
	if err := ondisk.CheckMapName(name); err != nil {
		return err
	}
	if _, err := v.headLocked(name); err == nil {
		return ErrVolumeExists
	}
	return nil
}

// mayMakeVolumeLocked is what speaks against a further volume. v.job.starting and v.metaMu are
// held.
func (v *Volume) mayMakeVolumeLocked() error {
	if err := v.noJobLocked(); err != nil {
		return err
	}
	if err := v.mayChangePoolLocked(); err != nil {
		return err
	}
	if v.mapsLocked() >= ondisk.MaxMaps {
		return ErrTooMany
	}
	for _, c := range v.components() {
		if c.member == 0 {
			return fmt.Errorf("%s has no member id: %w", c.name(), ErrNoExtension)
		}
	}
	return v.mapsKnown()
}

// makeVolumeLocked makes a volume and puts it in force. v.metaMu is held.
func (v *Volume) makeVolumeLocked(name string, size uint64, quota int64, of *snapshot) error {
	d := v.nextDirectory(false)
	m := ondisk.PoolMap{Kind: ondisk.KindVolume, Name: name, Time: v.now(), Size: size, Quota: uint64(quota)}
	m.ID, d.NextMap = d.NextMap, d.NextMap+1
	if of != nil {
		m.Origin = of.ID
	}
	h := v.newHead(m)
	v.pool.others.Store(true)
	if err := v.storeVolumeLocked(h, m, of, d); err != nil {
		if v.pool.doubt == nil {
			v.alloc.PutAll(d.taken)
			v.pool.others.Store(v.pool.dir != nil)
		}
		return err
	}
	if of != nil {
		h.become(of)
	}
	v.setDirectory(&d.Directory)
	v.setFurther(append(slices.Clone(v.further()), h))
	v.nameSnapshots()
	if v.cfg.serial {
		close(h.committer.done)
	} else {
		go h.committer.loop()
	}
	if len(d.gone) > 0 {
		v.freeUnshared(d.gone)
		v.freeSoon()
	}
	return nil
}

// become makes the map of h, which nobody knows yet, that of a snapshot.
func (h *Head) become(of *snapshot) {
	h.origin = of
	var words [chunkmap.PageEntries]chunkmap.Word
	for page := range of.frozen.Pages() {
		if !of.frozen.Page(page, &words) {
			continue
		}
		for i, w := range words {
			if w != 0 {
				h.chunks.SetRun(page*chunkmap.PageEntries+uint64(i), w, 1)
				h.allocated.Add(1)
			}
		}
	}
	if !h.v.cfg.breaks(breakOriginOwner) {
		h.chunks.SetOrigin(of.frozen)
	}
}

// storeVolumeLocked writes the map of h, which is that of a snapshot or empty, and puts d,
// with h in it, in force. v.metaMu is held.
func (v *Volume) storeVolumeLocked(h *Head, m ondisk.PoolMap, of *snapshot, d *nextDirectory) error {
	d.Maps = append(d.Maps, m)
	plan, err := v.planVolume(d, m.ID, m.Size, nil)
	if err != nil {
		return err
	}
	h.lies.Store(&plan.at)
	storeMap := func() error {
		if of == nil {
			return v.storeEmpty(plan)
		}
		plan.words = of.frozen
		return v.storeMap(plan)
	}
	return v.storeInForceLocked(storeMap, d, breakDirectoryFirst)
}

// storeEmpty writes the map of a further volume in which nothing is allocated, and its list,
// and flushes them.
func (v *Volume) storeEmpty(m *plannedMap) error {
	var written []alloc.Phys
	for i, part := range m.at.parts {
		written = append(written, part.at)
		c := v.component(part.at.Comp)
		from := int64(i) * v.chunk
		n := (min(v.chunk, m.size-from) + v.sector - 1) / v.sector * v.sector
		if err := c.clear(c.offset(part.at.Chunk), n, v.zeros); err != nil {
			return err
		}
	}
	if err := v.flushOf(written); err != nil {
		return err
	}
	return v.storeChain(m.list, m.at.list)
}

// MayDeleteVolume tells how many chunks the volume of that name alone has, which are lost when
// it is deleted, or why it cannot be (ErrNoVolume, ErrHasSnapshots). Who uses it is not looked
// at.
func (v *Volume) MayDeleteVolume(name string) (alone int64, err error) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	h, err := v.furtherLocked(name)
	if err == nil {
		err = h.noSnapshotsLocked()
	}
	if err != nil {
		return 0, fmt.Errorf("delete %s/%s: %w", v.name, ondisk.Printable(name), err)
	}
	h.committer.pause()
	defer h.committer.unpause()
	h.eachWord(func(vc uint64, p alloc.Phys) bool {
		if !h.chunks.IsNamed(vc, chunkmap.WordOf(p)) {
			alone++
		}
		return true
	})
	return alone, nil
}

// noSnapshotsLocked refuses to delete a volume that has snapshots. v.metaMu is held.
func (h *Head) noSnapshotsLocked() error {
	var names []string
	for _, s := range h.snapshots() {
		names = append(names, s.Name)
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("%w (%s)", ErrHasSnapshots, firstOf(names))
}

// furtherLocked is the volume of that name, which is not the first. v.metaMu is held.
func (v *Volume) furtherLocked(name string) (*Head, error) {
	if name == "" {
		return nil, refuse(ErrRequest, "%s is the volume that holds the pool: destroy it", v.name)
	}
	return v.headLocked(name)
}

// idleLocked is the volume of that name, if it is not the first and nobody uses it
// (ErrNoVolume, ErrVolumeInUse). v.metaMu is held.
func (v *Volume) idleLocked(name string) (*Head, error) {
	h, err := v.furtherLocked(name)
	if err == nil && h.users.Load() > 0 {
		err = ErrVolumeInUse
	}
	return h, err
}

// DeleteVolume deletes the volume of that name (ErrNoVolume, ErrVolumeInUse,
// ErrHasSnapshots, and ErrBusy when what is at work does not end within 5 s), on stable storage when it returns. What it alone named becomes free soon
// after. It needs no chunk.
func (v *Volume) DeleteVolume(name string) error {
	v.metaMu.Lock()
	err := v.mayChangePoolLocked()
	if err == nil {
		err = v.deleteVolumeLocked(name)
	}
	v.metaMu.Unlock()
	v.emit(Event{Kind: EventSnapshots}) // who let go of it looks whether it is there yet
	if err != nil {
		return fmt.Errorf("delete %s/%s: %w", v.name, ondisk.Printable(name), err)
	}
	return nil
}

// deleteVolumeLocked is DeleteVolume. The record without the volume is durable before
// anything is free that it named. v.metaMu is held.
func (v *Volume) deleteVolumeLocked(name string) error {
	h, err := v.idleLocked(name)
	if err != nil {
		return err
	}
	if err := h.noSnapshotsLocked(); err != nil {
		return err
	}
	h.FailHeld() // nobody waits for them
	defer h.writes.open(v.resume)
	if !h.writes.closeWithin(drainLimit) {
		return ErrBusy
	}
	if v.cfg.breaks(breakDeletedEarly) {
		h.forgetAll()
	}
	next, err := v.leaveOutLocked(h.mapID)
	if err != nil {
		return err
	}
	h.gone.Store(true)
	v.setFurther(slices.DeleteFunc(slices.Clone(v.further()), func(o *Head) bool { return o == h }))
	v.nameSnapshots()
	h.committer.stop()
	free := append(h.stored().chunks(), v.adoptLocked(next)...)
	if !v.cfg.breaks(breakDeletedEarly) {
		h.forgetAll()
	}
	v.freeUnshared(free)
	v.pool.others.Store(v.pool.dir != nil)
	v.barDamaged()
	v.freeSoon()
	v.kick()
	return nil
}

// forgetAll frees what h alone names, which no record does any more and nobody uses.
func (h *Head) forgetAll() {
	k := h.committer
	k.pause()
	defer k.unpause()
	free := h.v.ledger().free
	h.eachWord(func(vc uint64, p alloc.Phys) bool {
		if !h.chunks.IsNamed(vc, chunkmap.WordOf(p)) {
			free(p)
		}
		return true
	})
	for _, p := range k.degrade.kept {
		free(p)
	}
	for _, o := range k.degrade.locked {
		if o.owns() {
			free(o.new)
		}
	}
	k.degrade = degraded{}
}

// RenameVolume gives the volume of that name another one (ErrNoVolume, ErrVolumeInUse,
// ondisk.ErrMapName, ErrVolumeExists), which it has on stable storage when it returns. It
// needs no chunk, and a crash leaves the one name or the other. With dry it only tells whether
// that can be: who uses the volume is not looked at, and a pool that was opened to be read is
// asked as if it were not.
func (v *Volume) RenameVolume(name, to string, dry bool) error {
	v.metaMu.Lock()
	err := v.couldChangePoolLocked(dry)
	if err == nil {
		err = v.renameVolumeLocked(name, to, dry)
	}
	v.metaMu.Unlock()
	if !dry {
		v.emit(Event{Kind: EventSnapshots}) // who let go of it looks what it is called now
	}
	if err != nil {
		return fmt.Errorf("rename %s/%s: %w", v.name, ondisk.Printable(name), err)
	}
	return nil
}

// renameVolumeLocked is RenameVolume. v.metaMu is held.
func (v *Volume) renameVolumeLocked(name, to string, dry bool) error {
	h, err := v.furtherLocked(name)
	if err == nil {
		err = h.damage
	}
	if err == nil {
		err = v.mayNameLocked(to)
	}
	if err == nil && !dry {
		_, err = v.idleLocked(name)
	}
	if err != nil || dry {
		return err
	}
	for _, s := range h.snapshots() {
		if s.views > 0 {
			return fmt.Errorf("%s@%s: %w", h.Name(), s.Name, ErrSnapshotInUse)
		}
	}
	next := v.nextDirectory(true)
	next.edit(h.mapID, func(m *ondisk.PoolMap) { m.Name = to })
	if err := v.replaceDirectoryLocked(next); err != nil {
		return err
	}
	h.called.Store(&to)
	v.nameSnapshots()
	return nil
}

// numberMembers is numberMembersLocked, when a volume is opened.
func (v *Volume) numberMembers() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.numberMembersLocked(); err != nil {
		return fmt.Errorf("open %s: number its components: %w", v.name, err)
	}
	return nil
}

// numberMembersLocked puts a directory in force that has a number for every component, where
// the one that is has not, and there are maps that name chunks by such numbers. v.metaMu is
// held.
func (v *Volume) numberMembersLocked() error {
	d := v.pool.dir
	if d == nil || len(v.further()) == 0 || v.cfg.breaks(breakMapMembers) {
		return nil
	}
	next := v.nextDirectory(true)
	if len(next.Members) == len(d.Members) {
		return nil
	}
	if v.pool.doubt != nil {
		return v.pool.doubt
	}
	return v.replaceDirectoryLocked(next)
}
