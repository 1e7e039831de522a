package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// ShortError tells how much room a job misses.
type ShortError struct {
	Job     string
	Volume  string
	Missing int64 // bytes
	Needs   int64 // bytes of a provider that would do
	// Refused are the components with free chunks of which none is taken, by index:
	// some of what is missing may be there.
	Refused []RefusedComponent
}

// RefusedComponent is a component with free chunks that gets no new one.
type RefusedComponent struct {
	Name string
	Err  error // why: ErrTakesNoWrites or ErrFlushFailed
}

func (e *ShortError) Error() string {
	s := fmt.Sprintf("%s on %s: %v: %d bytes are missing (a new component of %d bytes would do)",
		e.Job, e.Volume, ErrNoSpace, e.Missing, e.Needs)
	return s + refusedText(e.Refused)
}

// refusedText says which components have room that is not used, and why.
func refusedText(refused []RefusedComponent) (s string) {
	for _, c := range refused {
		if errors.Is(c.Err, ErrFlushFailed) {
			s += fmt.Sprintf("; a flush of %s failed, and it is given none until the volume is reopened", c.Name)
		} else {
			s += fmt.Sprintf("; %s takes no writes and is given none", c.Name)
		}
	}
	return s
}

// shortOf is the error of a job that misses chunks where a new component with room
// for needs would do. refused are those that have room for it and are given none.
func (v *Volume) shortOf(job string, missing, needs int64, refused []RefusedComponent) error {
	return &ShortError{job, v.name, missing * v.chunk, max(needs, ondisk.MinChunks)*v.chunk + v.sector, refused}
}

// refusing are the components with free chunks that are given none because of their
// disks, though they could take what moves.
func (e evacuation) refusing() []RefusedComponent {
	v := e.v
	var rs []RefusedComponent
	for _, f := range v.alloc.Figures() {
		if f.Free == 0 || slices.Contains(e.leaving, f.Owner) || e.to != nil && f.Owner != e.to {
			continue
		}
		switch {
		case f.Owner.refused.Load():
			rs = append(rs, RefusedComponent{f.Owner.name(), ErrTakesNoWrites})
		case f.Owner.failedFlush() != nil:
			rs = append(rs, RefusedComponent{f.Owner.name(), ErrFlushFailed})
		}
	}
	return rs
}

// Unwrap makes errors.Is(err, ErrNoSpace) true.
func (e *ShortError) Unwrap() error { return ErrNoSpace }

// Evacuate starts a job that moves all chunks off the named components and then
// removes these. With target, that component alone takes the chunks
// (replace). A start of the volume after a crash resumes it.
func (v *Volume) Evacuate(names []string, target string, opt JobOptions) error {
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	return v.evacuateLocked(names, target, opt)
}

// evacuateLocked is Evacuate; v.job.starting is held, so that nobody removes a
// component meanwhile.
func (v *Volume) evacuateLocked(names []string, target string, opt JobOptions) error {
	e, err := v.findEvacuation(names, target)
	if err != nil {
		return err
	}
	if len(e.leaving) == len(v.components()) {
		return refuse(ErrRequest, "these are all components of %s: add one first, or leave one", v.name)
	}
	task, err := e.task(opt)
	if err != nil {
		return err
	}
	if opt.DryRun && e.zeroFails() {
		err = e.mustFit()
	} else {
		err = e.mayStart()
	}
	if err == nil {
		err = e.start(task, opt)
	}
	if err == nil || opt.DryRun || !e.zeroFails() {
		return err
	}
	return e.startUnwritten(task, opt)
}

// evacuation is components that are emptied, to leave the volume then.
type evacuation struct {
	v       *Volume
	leaving []*component // none: chunks make way, and nobody leaves
	to      *component   // takes their chunks; nil: any but leaving
}

// kind is the kind of job that it is.
func (e evacuation) kind() string {
	if e.to != nil {
		return jobReplace
	}
	return jobEvacuate
}

// setLeaving forbids that those of leaving which are still in the volume take new
// chunks, or allows it again.
func (e evacuation) setLeaving(leaving bool) {
	for _, c := range e.leaving {
		if slices.Contains(e.v.components(), c) {
			e.v.alloc.SetBar(c.index(), alloc.BarLeaving, leaving)
		}
	}
}

// startUnwritten is start where component 0 is of leaving and takes no writes:
// nowhere is it noted that the job runs. v.job.starting is held.
func (e evacuation) startUnwritten(task ondisk.Task, opt JobOptions) error {
	if err := e.mustFit(); err != nil {
		return err
	}
	return e.v.launchLocked(e.kind(), task, opt, func(j *jobHandle) error {
		return e.leaveAll(j, nil)
	})
}

// task is what the next start resumes.
func (e evacuation) task(opt JobOptions) (ondisk.Task, error) {
	task := ondisk.Task{Kind: ondisk.TaskEvacuate}
	if len(e.leaving) > len(task.Components) {
		return task, fmt.Errorf("evacuate %d components of %s at once: at most %d: %w", len(e.leaving), e.v.name, len(task.Components), ErrRequest)
	}
	for i, c := range e.leaving {
		task.Components[i], task.Members[i] = uint32(c.index()), c.member
	}
	task.ComponentCount = uint8(len(e.leaving))
	if e.to != nil {
		task.Kind = ondisk.TaskReplace
		task.Arg[1], task.Target = uint64(e.to.index()), e.to.member
	}
	task.Arg[0] = uint64(opt.Rate)
	return task, nil
}

// mayStart refuses what cannot fit.
func (e evacuation) mayStart() error {
	v := e.v
	if v.cond.is(stateStranded) {
		return &JobError{jobEvacuate, v.name, v.cond.refusal(deedAllocate)}
	}
	// What was freed before needs no room.
	if err := v.waitFreed(); err != nil {
		return &JobError{jobEvacuate, v.name, err}
	}
	return e.mustFit()
}

// findEvacuation finds the components that leave, and the one that takes their chunks if
// one is named.
func (v *Volume) findEvacuation(names []string, target string) (evacuation, error) {
	e := evacuation{v: v}
	if _, room := ondisk.ExtensionOffset(v.component(0).meta()); !room {
		return e, &JobError{jobEvacuate, v.name, ErrNoExtension}
	}
	byName := make(map[string]*component)
	for _, c := range v.components() {
		byName[c.name()] = c
	}
	for _, n := range names {
		c := byName[n]
		if c == nil {
			return e, fmt.Errorf("%s: %w of %s", ondisk.Printable(n), ErrNotComponent, v.name)
		}
		if !slices.Contains(e.leaving, c) {
			e.leaving = append(e.leaving, c)
		}
	}
	if target != "" {
		if e.to = byName[target]; e.to == nil || slices.Contains(e.leaving, e.to) {
			return e, fmt.Errorf("%s: %w of %s that can take chunks", ondisk.Printable(target), ErrNotComponent, v.name)
		}
	}
	return e, v.mapsWritable(e.leaving)
}

// mapsWritable refuses what moves chunks of a further volume that is degraded, unless each
// sector in doubt lies on a component that leaves: the map is written elsewhere first.
func (v *Volume) mapsWritable(leaving []*component) error {
	for _, h := range v.further() {
		if err := h.mapWritable(leaving); err != nil {
			return fmt.Errorf("%s: %w", h.Name(), err)
		}
	}
	return nil
}

func (h *Head) mapWritable(leaving []*component) error {
	if h.ill.is(stateFrozen) {
		return h.ill.refusal(deedAllocate)
	}
	h.committer.pause()
	defer h.committer.unpause()
	for s := range h.committer.degrade.sectors {
		if c, _ := h.home(s); !slices.Contains(leaving, c) {
			return h.ill.refusal(deedAllocate)
		}
	}
	return nil
}

// mustFit refuses when the chunks of leaving do not fit on the others, or the map does
// not if component 0 leaves.
func (e evacuation) mustFit() error {
	v := e.v
	var have int64
	for _, f := range v.alloc.Figures() {
		if slices.Contains(e.leaving, f.Owner) || e.to != nil && f.Owner != e.to || f.Owner.failedFlush() != nil || f.Owner.refused.Load() {
			continue
		}
		have += int64(f.Free)
	}
	if need := e.chunksNeeded(); need > have {
		return v.shortOf(e.kind(), need-have, need-have, e.refusing())
	}
	if slices.Contains(e.leaving, v.component(0)) {
		_, err := e.successor()
		return err
	}
	return nil
}

// chunksNeeded is how many chunks leaving take elsewhere, the map's included.
func (e evacuation) chunksNeeded() int64 {
	var n int64
	for _, f := range e.v.alloc.Figures() {
		c := f.Owner
		if !slices.Contains(e.leaving, c) {
			continue
		}
		n += int64(f.Total - f.Free)
		if e.v.lastSectorInUse(c) {
			n++
		}
		if c.index() == 0 {
			n += int64(c.first())
		}
	}
	return n + e.v.copiesNeeded()
}

// copiesNeeded is how many chunks there must be beside those that move, since maps of
// snapshots and further volumes are copied before what they were is free. The reserve has some.
func (v *Volume) copiesNeeded() (n int64) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	count := func(m *storedMap) { n += int64(len(m.list) + min(moveParts, len(m.parts))) }
	for _, s := range v.pool.snaps {
		count(&s.stored)
	}
	for _, h := range v.further() {
		count(h.stored())
	}
	if d := v.pool.dir; d != nil {
		n -= int64(len(d.Reserve))
	}
	return max(0, n)
}

// MayReplace refuses to let a provider of mediaSize bytes, which is no component
// yet, take the place of the named one when it is too small (ShortError). It
// tells how many chunks would move.
func (v *Volume) MayReplace(name string, mediaSize int64) (chunks int64, err error) {
	e, err := v.findEvacuation([]string{name}, "")
	if err != nil {
		return 0, err
	}
	need, have := e.chunksNeeded(), int64(ondisk.UsableChunks(mediaSize, int(v.sector), v.chunk))
	if need > have {
		return 0, v.shortOf(jobReplace, need-have, need, nil)
	}
	return v.countWhere(v.onAny(e.leaving)), nil
}

// DryReplace starts a job that only tells what MayReplace does.
func (v *Volume) DryReplace(name string, mediaSize int64) error {
	n, err := v.MayReplace(name, mediaSize)
	if err != nil {
		return err
	}
	return v.startJob(jobReplace, ondisk.Task{}, JobOptions{DryRun: true}, func(j *jobHandle) error {
		j.wouldMove(n)
		return nil
	})
}

// Replace adds p, which is no component yet, and starts the job that moves
// everything from the named component to it. The volume owns p; on error it is
// closed and no component, unless it stays one that the directory has no number for until
// the next start. Its name is not stored.
func (v *Volume) Replace(name string, p geomlib.Provider, force bool, opt JobOptions) error {
	if opt.DryRun {
		return errors.Join(v.DryReplace(name, p.MediaSize()), p.Close())
	}
	// Nobody is to remove what is added here before the job has it.
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	_, err := v.MayReplace(name, p.MediaSize())
	if known := v.mapsKnown(); known != nil { // else what is added could not leave again
		err = fmt.Errorf("replace on %s: %w", v.name, known)
	}
	if j, ok := v.Job(); err == nil && ok && j.State == JobRunning {
		err = fmt.Errorf("replace on %s: %w (%s)", v.name, ErrJobRunning, j.Kind)
	}
	if err == nil {
		err = v.Add([]geomlib.Provider{p}, AddOptions{Force: force})
		if err != nil && v.component(0).name() == name && v.zeroFails() {
			return v.replaceUnwritten(p, opt)
		}
	}
	if err != nil && slices.Contains(v.Providers(), p) {
		return err // it has joined, but has no number yet
	}
	if err != nil {
		return errors.Join(err, p.Close())
	}
	if err := v.evacuateLocked([]string{name}, p.Name(), opt); err != nil {
		// What was added for this alone has no business to stay.
		v.expectAgain(p.Name())
		return errors.Join(err, v.removeEmpty(p.Name()))
	}
	return nil
}

// wouldMove is the result of a dry run.
func (j *jobHandle) wouldMove(chunks int64) {
	j.total(chunks * j.v.chunk)
	j.result("%d chunks, %d bytes, would be moved", chunks, chunks*j.v.chunk)
}

// onAny picks what lies on any of comps.
func (v *Volume) onAny(comps []*component) func(alloc.Phys) bool {
	return func(p alloc.Phys) bool { return slices.Contains(comps, v.component(p.Comp)) }
}

// start starts the job; v.job.starting is held.
func (e evacuation) start(task ondisk.Task, opt JobOptions) error {
	v := e.v
	return v.startJobLocked(e.kind(), task, opt, func(j *jobHandle) error {
		if opt.DryRun {
			j.wouldMove(v.countWhere(v.onAny(e.leaving)))
			return nil
		}
		return e.run(j)
	})
}

// run moves everything off leaving and removes it.
func (e evacuation) run(j *jobHandle) error {
	e.setLeaving(true)
	if err := e.handOver(j); err != nil {
		e.setLeaving(false)
		if e.zeroFails() && j.ctx.Err() == nil {
			return e.leaveAll(j, nil)
		}
		return err
	}
	return e.removeAll(j)
}

// leaveAll is run where component 0 is of leaving and takes no writes. fresh, if not
// nil, is a provider that joins in its place.
func (e evacuation) leaveAll(j *jobHandle, fresh *component) error {
	v := e.v
	e.setLeaving(true)
	err := e.leaveUnwritten(j, fresh)
	if err == nil {
		rest := evacuation{v, slices.DeleteFunc(slices.Clone(e.leaving), func(c *component) bool { return !slices.Contains(v.components(), c) }), e.to}
		if rest.to == nil {
			rest.to = fresh
		}
		if len(rest.leaving) > 0 {
			err = rest.handOver(j)
		}
	}
	if err != nil {
		e.setLeaving(false)
		return err
	}
	return e.removeAll(j)
}

// removeAll removes leaving, which are empty.
func (e evacuation) removeAll(j *jobHandle) error {
	v := e.v
	for i, c := range e.leaving {
		if !slices.Contains(v.components(), c) {
			continue // it was component 0, and left when it handed that on
		}
		if err := v.removeEmpty(c.name()); err != nil {
			evacuation{v: v, leaving: e.leaving[i+1:]}.setLeaving(false)
			return err
		}
	}
	s, _ := v.Job()
	j.result("%d chunks moved, %d components removed", s.Moved, len(e.leaving))
	return nil
}

// handOver empties leaving and gives the map on, if component 0 is one of them.
func (e evacuation) handOver(j *jobHandle) error {
	v := e.v
	if !slices.Contains(e.leaving, v.component(0)) {
		return e.empty(j)
	}
	t, err := e.successor()
	if err != nil {
		return err
	}
	// Nothing goes where the map will be.
	v.alloc.ClaimBelow(t.index(), v.component(0).first())
	if err := e.empty(j); err != nil {
		v.alloc.ReleaseKept(t.index())
		return err
	}
	return e.handZeroOn(j, t)
}

// empty moves all chunks off leaving, until none is there and none on its way. Maps go first:
// where they are it may be that none can be written, and a chunk moves by its map.
func (e evacuation) empty(j *jobHandle) error {
	v := e.v
	on := v.onAny(e.leaving)
	m := v.newMover(j, on)
	defer m.end()
	j.total(int64(len(v.placesWhere(on))) * v.chunk)
	if err := e.clearSystem(m); err != nil {
		return err
	}
	for {
		v.publishAssigned()
		places := v.placesWhere(on)
		if len(places) == 0 {
			break
		}
		if err := e.moveOff(m, places); err != nil {
			return err
		}
	}
	if err := e.clearSystem(m); err != nil {
		return err
	}
	return v.waitFreed()
}

// moveOff moves what is in places to where the evacuation's chunks go.
func (e evacuation) moveOff(m *mover, places []mapping) error {
	for i, pl := range places {
		target, ok, err := e.take()
		if err != nil {
			return err
		}
		left := int64(len(places) - i)
		if !ok {
			return e.v.shortOf(m.j.kind(), left, left, e.refusing())
		}
		if _, err := m.move(pl, target); err != nil {
			return e.short(m, err)
		}
	}
	return e.short(m, m.settle())
}

// clearSystem moves maps, but for the first volume's, and the directory off the mover's places.
func (e evacuation) clearSystem(m *mover) error { return e.short(m, m.clearSystem()) }

// short is err, or what the job misses if that is that there was no room for maps.
func (e evacuation) short(m *mover, err error) error {
	if !errors.Is(err, ErrNoSpace) {
		return err
	}
	n := max(1, e.v.copiesNeeded()+reserveChunks)
	return e.v.shortOf(m.j.kind(), n, n, e.refusing())
}

// take takes a chunk of to, or of whichever component the order says. Chunks
// that clients have freed are waited for before it says that there is none.
func (e evacuation) take() (target alloc.Phys, ok bool, err error) {
	if target, ok = e.takeNow(); ok || e.v.freed.pending() == 0 {
		return target, ok, nil
	}
	if err := e.v.waitFreed(); err != nil {
		return alloc.Phys{}, false, err
	}
	target, ok = e.takeNow()
	return target, ok, nil
}

// takeNow is take without the wait.
func (e evacuation) takeNow() (alloc.Phys, bool) {
	if e.to != nil {
		return e.v.alloc.TakeFrom(e.to.index())
	}
	ps, ok := e.v.alloc.Take(nil, 1, true)
	if !ok {
		return alloc.Phys{}, false
	}
	return ps[0].At, true
}

// moveBuffer is how much of a chunk is copied at a time.
const moveBuffer = 1 << 20
