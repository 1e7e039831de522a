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
	return &ShortError{job, v.name, missing * v.chunk, max(needs, leastChunks)*v.chunk + v.sector, refused}
}

// refusing are the components with free chunks that are given none because of their
// disks, though a job could take some: of to, or of any when to is nil, but not of
// leaving.
func (v *Volume) refusing(leaving []*component, to *component) []RefusedComponent {
	var rs []RefusedComponent
	for _, f := range v.alloc.Figures() {
		if f.Free == 0 || slices.Contains(leaving, f.Owner) || to != nil && f.Owner != to {
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

// leastChunks is how many chunks a component has at least.
const leastChunks = 4

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
	leaving, to, err := v.evacuation(names, target)
	if err != nil {
		return err
	}
	task, err := v.taskOf(leaving, to, opt)
	if err != nil {
		return err
	}
	if opt.DryRun && v.zeroFails(leaving) {
		err = v.roomFor(leaving, to)
	} else {
		err = v.mayEvacuate(leaving, to)
	}
	if err == nil {
		err = v.startEvacuation(leaving, to, task, opt)
	}
	if err == nil || opt.DryRun || !v.zeroFails(leaving) {
		return err
	}
	return v.startUnwritten(leaving, to, task, opt)
}

// startUnwritten is startEvacuation where component 0 is of leaving and takes no writes:
// nowhere is it noted that the job runs. v.job.starting is held.
func (v *Volume) startUnwritten(leaving []*component, to *component, task ondisk.Task, opt JobOptions) error {
	if err := v.roomFor(leaving, to); err != nil {
		return err
	}
	return v.launchLocked(kindOf(to), task, opt, func(j *jobHandle) error {
		return v.leaveAll(j, leaving, to, nil)
	})
}

// taskOf is the task that remembers an evacuation.
func (v *Volume) taskOf(leaving []*component, to *component, opt JobOptions) (ondisk.Task, error) {
	task := ondisk.Task{Kind: ondisk.TaskEvacuate}
	if len(leaving) > len(task.Components) {
		return task, fmt.Errorf("evacuate %d components of %s at once: at most %d: %w", len(leaving), v.name, len(task.Components), ErrRequest)
	}
	for i, c := range leaving {
		task.Components[i], task.Members[i] = uint32(c.index()), c.member
	}
	task.ComponentCount = uint8(len(leaving))
	if to != nil {
		task.Kind = ondisk.TaskReplace
		task.Arg[1], task.Target = uint64(to.index()), to.member
	}
	task.Arg[0] = uint64(opt.Rate)
	return task, nil
}

// evacuation finds the components.
func (v *Volume) evacuation(names []string, target string) (leaving []*component, to *component, err error) {
	if leaving, to, err = v.findLeaving(names, target); err != nil {
		return nil, nil, err
	}
	if len(leaving) == len(v.components()) {
		return nil, nil, refuse(ErrRequest, "these are all components of %s: add one first, or leave one", v.name)
	}
	return leaving, to, nil
}

// mayEvacuate refuses what cannot fit.
func (v *Volume) mayEvacuate(leaving []*component, to *component) error {
	if v.cond.is(stateStranded) {
		return &JobError{jobEvacuate, v.name, v.cond.refusal(deedAllocate)}
	}
	// What was freed before needs no room.
	if err := v.waitFreed(); err != nil {
		return &JobError{jobEvacuate, v.name, err}
	}
	return v.roomFor(leaving, to)
}

// findLeaving finds the components that leave, and the one that takes their chunks if
// one is named.
func (v *Volume) findLeaving(names []string, target string) (leaving []*component, to *component, err error) {
	if _, room := ondisk.ExtensionOffset(v.component(0).meta()); !room {
		return nil, nil, &JobError{jobEvacuate, v.name, ErrNoExtension}
	}
	byName := make(map[string]*component)
	for _, c := range v.components() {
		byName[c.name()] = c
	}
	for _, n := range names {
		c := byName[n]
		if c == nil {
			return nil, nil, fmt.Errorf("%s: %w of %s", ondisk.Printable(n), ErrNotComponent, v.name)
		}
		if !slices.Contains(leaving, c) {
			leaving = append(leaving, c)
		}
	}
	if target != "" {
		if to = byName[target]; to == nil || slices.Contains(leaving, to) {
			return nil, nil, fmt.Errorf("%s: %w of %s that can take chunks", ondisk.Printable(target), ErrNotComponent, v.name)
		}
	}
	return leaving, to, nil
}

// roomFor checks that the chunks of leaving fit on the others, and so does
// the map if component 0 leaves.
func (v *Volume) roomFor(leaving []*component, to *component) error {
	var have int64
	for _, f := range v.alloc.Figures() {
		if slices.Contains(leaving, f.Owner) || to != nil && f.Owner != to || f.Owner.failedFlush() != nil || f.Owner.refused.Load() {
			continue
		}
		have += int64(f.Free)
	}
	if need := v.chunksNeeded(leaving); need > have {
		return v.shortOf(kindOf(to), need-have, need-have, v.refusing(leaving, to))
	}
	if slices.Contains(leaving, v.component(0)) {
		_, err := v.successor(leaving, to)
		return err
	}
	return nil
}

// chunksNeeded is how many chunks leaving take elsewhere, the map's included.
func (v *Volume) chunksNeeded(leaving []*component) int64 {
	var n int64
	for _, f := range v.alloc.Figures() {
		c := f.Owner
		if !slices.Contains(leaving, c) {
			continue
		}
		n += int64(f.Total - f.Free)
		if v.lastSectorInUse(c) {
			n++
		}
		if c.index() == 0 {
			n += int64(c.first())
		}
	}
	return n
}

// MayReplace refuses to let a provider of mediaSize bytes, which is no component
// yet, take the place of the named one when it is too small (ShortError). It
// tells how many chunks would move.
func (v *Volume) MayReplace(name string, mediaSize int64) (chunks int64, err error) {
	leaving, _, err := v.findLeaving([]string{name}, "")
	if err != nil {
		return 0, err
	}
	need, have := v.chunksNeeded(leaving), int64(ondisk.UsableChunks(mediaSize, int(v.sector), v.chunk))
	if need > have {
		return 0, v.shortOf(jobReplace, need-have, need, nil)
	}
	return int64(len(v.chunksWhere(v.onAny(leaving)))), nil
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
// closed and no component. Its name is not stored.
func (v *Volume) Replace(name string, p geomlib.Provider, force bool, opt JobOptions) error {
	if opt.DryRun {
		return errors.Join(v.DryReplace(name, p.MediaSize()), p.Close())
	}
	// Nobody is to remove what is added here before the job has it.
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	_, err := v.MayReplace(name, p.MediaSize())
	if j, ok := v.Job(); err == nil && ok && j.State == JobRunning {
		err = fmt.Errorf("replace on %s: %w (%s)", v.name, ErrJobRunning, j.Kind)
	}
	if err == nil {
		err = v.Add([]geomlib.Provider{p}, AddOptions{Force: force})
		if err != nil && v.component(0).name() == name && v.zeroFails(v.components()) {
			return v.replaceUnwritten(p, opt)
		}
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

// kindOf is the kind of a job that empties components for to, or for any.
func kindOf(to *component) string {
	if to != nil {
		return jobReplace
	}
	return jobEvacuate
}

// startEvacuation starts the job; v.job.starting is held.
func (v *Volume) startEvacuation(leaving []*component, to *component, task ondisk.Task, opt JobOptions) error {
	return v.startJobLocked(kindOf(to), task, opt, func(j *jobHandle) error {
		if opt.DryRun {
			j.wouldMove(int64(len(v.chunksWhere(v.onAny(leaving)))))
			return nil
		}
		return v.evacuate(j, leaving, to)
	})
}

// evacuate moves everything off leaving and removes it.
func (v *Volume) evacuate(j *jobHandle, leaving []*component, to *component) error {
	for _, c := range leaving {
		v.alloc.SetBar(c.index(), alloc.BarLeaving, true)
	}
	if err := v.handOver(j, leaving, to); err != nil {
		for _, c := range leaving {
			v.alloc.SetBar(c.index(), alloc.BarLeaving, false)
		}
		if v.zeroFails(leaving) && j.ctx.Err() == nil {
			return v.leaveAll(j, leaving, to, nil)
		}
		return err
	}
	return v.removeAll(j, leaving)
}

// leaveAll is evacuate where component 0 is of leaving and takes no writes. fresh, if not
// nil, is a provider that joins in its place.
func (v *Volume) leaveAll(j *jobHandle, leaving []*component, to, fresh *component) error {
	for _, c := range leaving {
		v.alloc.SetBar(c.index(), alloc.BarLeaving, true)
	}
	err := v.leaveUnwritten(j, leaving, to, fresh)
	if err == nil {
		if to == nil {
			to = fresh
		}
		rest := slices.DeleteFunc(slices.Clone(leaving), func(c *component) bool { return !slices.Contains(v.components(), c) })
		if len(rest) > 0 {
			err = v.handOver(j, rest, to)
		}
	}
	if err != nil {
		for _, c := range leaving {
			if slices.Contains(v.components(), c) {
				v.alloc.SetBar(c.index(), alloc.BarLeaving, false)
			}
		}
		return err
	}
	return v.removeAll(j, leaving)
}

// removeAll removes leaving, which are empty.
func (v *Volume) removeAll(j *jobHandle, leaving []*component) error {
	for i, c := range leaving {
		if !slices.Contains(v.components(), c) {
			continue // it was component 0, and left when it handed that on
		}
		if err := v.removeEmpty(c.name()); err != nil {
			for _, c := range leaving[i+1:] {
				v.alloc.SetBar(c.index(), alloc.BarLeaving, false)
			}
			return err
		}
	}
	s, _ := v.Job()
	j.result("%d chunks moved, %d components removed", s.Moved, len(leaving))
	return nil
}

// handOver empties leaving and gives the map on, if component 0 is one of them.
func (v *Volume) handOver(j *jobHandle, leaving []*component, to *component) error {
	if !slices.Contains(leaving, v.component(0)) {
		return v.emptyComponents(j, leaving, to)
	}
	t, err := v.successor(leaving, to)
	if err != nil {
		return err
	}
	// Nothing goes where the map will be.
	v.alloc.ClaimBelow(t.index(), v.component(0).first())
	if err := v.emptyComponents(j, leaving, to); err != nil {
		v.alloc.ReleaseKept(t.index())
		return err
	}
	return v.handZeroOn(j, t, leaving, to)
}

// emptyComponents moves all chunks off leaving, until none is there and none on its way.
func (v *Volume) emptyComponents(j *jobHandle, leaving []*component, to *component) error {
	on := v.onAny(leaving)
	buf := make([]byte, min(moveBuffer, v.chunk))
	for first := true; ; first = false {
		v.committer.pause() // what was assigned before is published now
		v.committer.unpause()
		places := v.chunksWhere(on)
		if first {
			j.total(int64(len(places)) * v.chunk)
		}
		if len(places) == 0 {
			break
		}
		for i, pl := range places {
			target, ok, err := v.takeFor(to)
			if err != nil {
				return err
			}
			if !ok {
				left := int64(len(places) - i)
				return v.shortOf(j.kind(), left, left, v.refusing(leaving, to))
			}
			moved, err := v.moveChunk(pl.vc, pl.at, target, buf)
			if err != nil {
				return err
			}
			n := int64(0)
			if moved {
				n = 1
			}
			if err := j.step(v.chunk, n); err != nil {
				return err
			}
		}
	}
	return v.waitFreed()
}

// takeFor takes a chunk of to, or of whichever component the order says. Chunks
// that clients have freed are waited for before it says that there is none.
func (v *Volume) takeFor(to *component) (target alloc.Phys, ok bool, err error) {
	if target, ok = v.takeNow(to); ok || v.freed.pending() == 0 {
		return target, ok, nil
	}
	if err := v.waitFreed(); err != nil {
		return alloc.Phys{}, false, err
	}
	target, ok = v.takeNow(to)
	return target, ok, nil
}

// takeNow is takeFor without the wait.
func (v *Volume) takeNow(to *component) (alloc.Phys, bool) {
	if to != nil {
		return v.alloc.TakeFrom(to.index())
	}
	ps, ok := v.alloc.Take(nil, 1, true)
	if !ok {
		return alloc.Phys{}, false
	}
	return ps[0].At, true
}

// moveBuffer is how much of a chunk is copied at a time.
const moveBuffer = 1 << 20
