package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// AllocatedError tells how many chunks keep a component from being removed.
type AllocatedError struct {
	Component string
	Chunks    uint32
}

func (e *AllocatedError) Error() string {
	return fmt.Sprintf("%s: %v: %d chunks in the way; `gvirstor remove -e` moves them first", e.Component, ErrAllocated, e.Chunks)
}

// Unwrap makes errors.Is(err, ErrAllocated) true.
func (e *AllocatedError) Unwrap() error { return ErrAllocated }

// Remove takes a component that holds no data out of the volume. The last
// component takes its index. While a job runs it is refused with ErrJobRunning:
// the job may be about to put a chunk on a component whose index changes.
func (v *Volume) Remove(name string) error {
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	if j, ok := v.Job(); ok && j.State == JobRunning && !j.DryRun {
		return fmt.Errorf("remove %s from %s: %w (%s)", name, v.name, ErrJobRunning, j.Kind)
	}
	return v.removeEmpty(name)
}

// removeEmpty is Remove, for the job that runs too.
//
// Under an intent: the map entries of the last component are rewritten, and the new list
// of members comes into force; then the label of who left is cleared. Whoever opens the
// volume after a crash finishes that (finishIntent, fence).
func (v *Volume) removeEmpty(name string) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.readOnly(); err != nil {
		return fmt.Errorf("remove from %s: %w", v.name, err)
	}
	if err := errors.Join(v.cond.refusal(deedRenumber), v.mapsWritable(nil), v.mapsKnown(), v.pool.doubt); err != nil {
		return fmt.Errorf("remove from %s: %w", v.name, err)
	}
	if err := v.mayChangeLocked(); err != nil {
		return fmt.Errorf("remove from %s: %w", v.name, err)
	}
	comps := v.components()
	var gone *component
	for _, c := range comps {
		if c.name() == name {
			gone = c
		}
	}
	switch {
	case gone == nil:
		return fmt.Errorf("%s: %w of %s", ondisk.Printable(name), ErrNotComponent, v.name)
	case gone.index() == 0:
		return fmt.Errorf("%s: %w of %s; `gvirstor remove -e` moves that first", name, ErrComponentZero, v.name)
	}
	if err := v.waitFreed(); err != nil {
		return fmt.Errorf("remove %s from %s: %w", name, v.name, err)
	}
	v.alloc.SetBar(gone.index(), alloc.BarLeaving, true)
	if n := v.chunksOn(gone); n > 0 {
		v.alloc.SetBar(gone.index(), alloc.BarLeaving, false)
		return &AllocatedError{name, n}
	}
	if err := v.takeOutLocked(gone); err != nil {
		if !slices.Contains(v.components(), gone) {
			v.meta.left = append(v.meta.left, gone)
		}
		return fmt.Errorf("remove %s from %s: %w; what was begun is finished at the next start", name, v.name, err)
	}
	v.emit(Event{Kind: EventComponents})
	if err := gone.close(); err != nil {
		return fmt.Errorf("close %s after its removal from %s: %w", name, v.name, err)
	}
	return nil
}

// chunksOn counts the chunks of c that are taken, that on its metadata sector
// included.
func (v *Volume) chunksOn(c *component) uint32 {
	n := v.alloc.Used(c.index())
	if v.lastSectorInUse(c) {
		n++
	}
	return n
}

// takeOutLocked takes gone, which is empty and not component 0, out of the list of
// members; the last component takes its index. gone itself is not written to before that
// is in force and settled, and if it takes no writes then all is done but for its label,
// which nobody believes. v.metaMu is held.
func (v *Volume) takeOutLocked(gone *component) error {
	comps := v.components()
	removed, last := gone.index(), uint16(len(comps)-1)
	if v.cfg.breaks(breakClearEarly) {
		v.discharge(gone)
	}
	if err := v.disownLocked(gone); err != nil {
		v.staysLocked(gone)
		return err
	}
	if err := v.intendRemoval(gone, comps[last]); err != nil {
		return err
	}
	next := slices.Clone(comps[:last])
	if removed < last {
		next[removed] = comps[last]
		if err := v.renameLast(removed, last); err != nil {
			return err
		}
	}
	if err := v.riseLocked(rise{comps: next}); err != nil {
		_ = v.cond.doubt(err)
		return err
	}
	if removed < last {
		next[removed].setIndex(removed)
	}
	if err := v.forgetIndex(next); err != nil {
		return err
	}
	v.discharge(gone)
	if !v.meta.ext.room {
		return nil
	}
	return v.writeExtensionLocked(v.tidyRecord)
}

// discharge clears the label of a component that is no member any more.
func (v *Volume) discharge(gone *component) (cleared bool) {
	if v.forgetMember(gone.prov()) {
		return true
	}
	v.outside.add(*NewOutsider(v.name, Member{gone.prov(), gone.meta()}, ErrStranger, v.meta.gen.settled))
	return false
}

// intendRemoval notes that gone leaves and that moved takes its index. Where the label
// left no room for that only the last component can leave, which needs no more than the
// list of members. v.metaMu is held.
func (v *Volume) intendRemoval(gone, moved *component) error {
	removed, last := uint64(gone.index()), uint64(moved.index())
	if !v.meta.ext.room && gone == moved {
		return nil
	}
	in := ondisk.Intent{Kind: ondisk.IntentRemove, Arg: [8]uint64{removed, last}, Leaves: gone.member, Moves: moved.member}
	if v.cfg.breaks(breakRenaming) {
		in.Arg[0] = last
	}
	err := v.writeExtensionLocked(func(e *ondisk.Extension) { e.Intent = in })
	if err == nil {
		return nil
	}
	// The intent may be in force all the same. What is to be finished must stay empty,
	// unless a later record says that there is nothing to finish.
	if back := v.writeExtensionLocked(func(*ondisk.Extension) {}); back != nil && v.meta.ext.room {
		_ = v.cond.doubt(err)
		return err
	}
	v.staysLocked(gone)
	return err
}

// staysLocked lets a component that was to leave, and that the directory may name no more,
// take chunks again. v.metaMu is held.
func (v *Volume) staysLocked(c *component) {
	var err error
	switch {
	case len(v.further()) == 0:
	case v.zeroFails(): // and leaves, maybe, without a write
		err = ErrTakesNoWrites
	default:
		err = v.numberMembersLocked()
	}
	if err != nil {
		v.log.Error("the directory does not name a component that was to leave: it takes data from the next start on",
			"component", c.name(), "error", err)
		v.alloc.SetBar(c.index(), alloc.BarUnnumbered, true)
	}
	v.alloc.SetBar(c.index(), alloc.BarLeaving, false)
}

// renameLast lets the maps name the last component by the index removed: in memory, and the
// first volume's on component 0. Until its last entry is changed both indexes name it. v.metaMu
// is held.
func (v *Volume) renameLast(removed, last uint16) error {
	both := slices.Clone(v.components())
	both[removed] = both[last]
	if err := v.renameFurther(both, removed, last); err != nil {
		return err
	}
	if err := v.renumberChunks(last, removed); err != nil {
		return err
	}
	v.pauseAll()
	v.endAlias(last, removed)
	v.unpauseAll()
	return v.component(0).flush()
}

// renameFurther begins renameLast: both are the components from now on, of which one has two
// indexes, and further volumes know the new one alone. On disk they have numbers, which stay.
// v.metaMu is held.
func (v *Volume) renameFurther(both []*component, removed, last uint16) error {
	v.moving.close() // a discard has chunks that it waits for a committer to free
	defer v.moving.open(v.resume)
	v.pauseAll()
	defer v.unpauseAll()
	if v.anyDegraded() { // since it was looked at: chunks are locked that nobody lets go
		return v.cond.doubt(ErrDegraded)
	}
	v.beginAlias(last, removed)
	v.setComponents(both)
	v.setNumbers()
	v.alloc.Renumber(both, removed, last)
	for _, h := range v.further() {
		h.renameWords(last, removed)
	}
	return nil
}

// forgetIndex makes comps the list, when nothing names the index after them.
func (v *Volume) forgetIndex(comps []*component) error {
	v.pauseAll()
	defer v.unpauseAll()
	if err := v.waitFreed(); err != nil {
		return err
	}
	v.setComponents(comps)
	v.setNumbers()
	v.alloc.Truncate(comps)
	return nil
}

// retask makes a task that is under way name the components by their indexes in
// comps. Those that have left are left out, and a task without any is over.
func retask(t ondisk.Task, comps []*component) ondisk.Task {
	known := slices.ContainsFunc(t.Members[:], func(id uint64) bool { return id != 0 })
	if !known {
		return t // it names none, or was noted by the first release
	}
	index := make(map[uint64]int, len(comps))
	for i, c := range comps {
		index[c.member] = i
	}
	n := t
	n.Components, n.Members, n.ComponentCount = [ondisk.MaxTaskComponents]uint32{}, [ondisk.MaxTaskComponents]uint64{}, 0
	for _, id := range t.Members[:t.ComponentCount] {
		if i, ok := index[id]; ok {
			n.Components[n.ComponentCount], n.Members[n.ComponentCount] = uint32(i), id
			n.ComponentCount++
		}
	}
	if n.ComponentCount == 0 {
		return ondisk.Task{}
	}
	if to, ok := index[t.Target]; ok {
		n.Arg[1] = uint64(to)
	}
	return n
}

// renumberTask makes a task that the first release noted name the components as they are
// called after a removal.
func renumberTask(t ondisk.Task, removed, last uint16) ondisk.Task {
	if t.Kind == ondisk.TaskReplace && t.Arg[1] == uint64(last) {
		t.Arg[1] = uint64(removed)
	}
	old, n := t.Components, t.ComponentCount
	t.Components, t.ComponentCount = [ondisk.MaxTaskComponents]uint32{}, 0
	for _, c := range old[:n] {
		switch c {
		case uint32(removed):
			continue
		case uint32(last):
			c = uint32(removed)
		}
		t.Components[t.ComponentCount] = c
		t.ComponentCount++
	}
	if t.ComponentCount == 0 && (t.Kind == ondisk.TaskEvacuate || t.Kind == ondisk.TaskReplace) {
		return ondisk.Task{}
	}
	return t
}

// renumberChunks maps every chunk on component from to the same place on to.
func (v *Volume) renumberChunks(from, to uint16) error {
	n := uint64(v.Size() / v.chunk)
	var ops []mapOp
	for vc := v.chunks.NextAllocated(0, n); vc < n; vc = v.chunks.NextAllocated(vc+1, n) {
		if v.chunks.Load(vc).Phys().Comp != from {
			continue
		}
		ph, ok := v.chunks.Lock(vc)
		if !ok {
			continue
		}
		if ph.Comp != from {
			v.chunks.Unlock(vc, chunkmap.WordOf(ph))
			continue
		}
		ops = append(ops, mapOp{vc: vc, old: ph, new: alloc.Phys{Comp: to, Chunk: ph.Chunk}, set: true, same: true})
		if len(ops) == discardStep {
			if err := v.committer.commit(ops); err != nil {
				return err
			}
			ops = nil
		}
	}
	if ops == nil {
		return nil
	}
	return v.committer.commit(ops)
}

// waitFreed waits until chunks that were freed are free, but for those of which a component
// that can never again be flushed would have to say so.
func (v *Volume) waitFreed() error {
	for lost := 0; v.freed.pending() > lost; {
		var err error
		if lost, err = v.flushFreed(); err != nil {
			return err
		}
		v.freed.wait()
	}
	return nil
}

// flushFreed flushes the components whose maps say that chunks are free. lost are those of
// which nobody will know.
func (v *Volume) flushFreed() (lost int, err error) {
	for i, c := range v.components() {
		l := c.ledger.Load()
		if i > 0 && (l == nil || l.pending() == 0) {
			continue
		}
		if i == 0 && v.cond.is(stateStranded) {
			lost += l.pending()
			continue
		}
		err := c.flush()
		switch {
		case err == nil:
		case i == 0:
			return 0, err
		default: // which the component remembers
			lost += l.pending()
		}
	}
	return lost, nil
}
