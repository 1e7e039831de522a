package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Errors of Remove.
var (
	// ErrAllocated: chunks of the component hold data.
	ErrAllocated = errors.New("component holds data")
	// ErrComponentZero: component 0 holds the allocation map.
	ErrComponentZero = errors.New("component 0 holds the allocation map")
	// ErrNotComponent: the provider is no component of the volume.
	ErrNotComponent = errors.New("not a component")
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
// Under an intent: the removed component's metadata is marked, the last
// one's index and its map entries are rewritten, and component 0's new count ends
// it; then the mark is cleared. Whoever opens the volume after a crash finishes that (finishIntent).
func (v *Volume) removeEmpty(name string) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if v.cfg.ReadOnly || !v.writable.Load() {
		return fmt.Errorf("remove from %s: %w", v.name, ErrReadOnly)
	}
	if v.closing.Load() {
		return fmt.Errorf("remove from %s: %w", v.name, ErrClosed)
	}
	if v.isDegraded.Load() { // chunks in doubt are remembered by their component's index
		return fmt.Errorf("remove from %s: %w", v.name, ErrDegraded)
	}
	if err := v.settledLocked(); err != nil {
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
		return fmt.Errorf("%s: %w of %s", name, ErrNotComponent, v.name)
	case gone.no() == 0:
		return fmt.Errorf("%s: %w of %s; `gvirstor remove -e` moves that first", name, ErrComponentZero, v.name)
	}
	if err := v.settleFreed(); err != nil {
		return fmt.Errorf("remove %s from %s: %w", name, v.name, err)
	}
	v.alloc.setClosed(gone.no(), true)
	if n := v.chunksOn(gone); n > 0 {
		v.alloc.setClosed(gone.no(), false)
		return &AllocatedError{name, n}
	}
	last := uint16(len(comps) - 1)
	var err error
	if gone.no() == last {
		err = v.removeLastLocked(gone)
	} else {
		err = v.removeMiddleLocked(gone, last)
	}
	if err != nil {
		if !slices.Contains(v.components(), gone) {
			v.left = append(v.left, gone.p())
		}
		return fmt.Errorf("remove %s from %s: %w; what was begun is finished at the next start", name, v.name, err)
	}
	v.emit(Event{Kind: EventComponents})
	if err := gone.p().Close(); err != nil {
		return fmt.Errorf("close %s after its removal from %s: %w", name, v.name, err)
	}
	return nil
}

// chunksOn counts the chunks of c that are taken, that on its metadata sector
// included.
func (v *Volume) chunksOn(c *component) uint32 {
	n := v.alloc.used(c.no())
	if v.lastSectorInUse(c) {
		n++
	}
	return n
}

// removeLastLocked needs no intent: a component that component 0 does not
// count is none. v.metaMu is held.
func (v *Volume) removeLastLocked(gone *component) error {
	comps := v.components()
	n := len(comps) - 1
	if err := v.storeCount(comps[0], n); err != nil {
		return err
	}
	for _, c := range comps[1:n] {
		if err := v.storeCount(c, n); err != nil {
			v.log.Warn("component keeps an old count until the next start", "component", c.name(), "error", err)
		}
	}
	if err := v.forgetIndex(comps[:n:n]); err != nil {
		return err
	}
	if v.ext.rec.Task.Kind != ondisk.TaskNone {
		err := v.writeExtensionLocked(func(e *ondisk.Extension) { e.Task = renumberTask(e.Task, uint16(n), uint16(n)) })
		if err != nil {
			return err
		}
	}
	return geomlib.ClearMetadata(gone.accounted())
}

// removeMiddleLocked lets the last component take the index of gone; v.metaMu
// is held.
func (v *Volume) removeMiddleLocked(gone *component, last uint16) error {
	comps := v.components()
	removed, moved := gone.no(), comps[last]
	err := v.writeExtensionLocked(func(e *ondisk.Extension) {
		e.Intent = ondisk.Intent{Kind: ondisk.IntentRemove, Arg: [8]uint64{uint64(removed), uint64(last)}}
	})
	if err != nil {
		// The intent may be in force all the same. What is to be finished must stay
		// empty, unless a later record says that there is nothing to finish.
		if back := v.writeExtensionLocked(func(*ondisk.Extension) {}); back != nil {
			v.inDoubt = fmt.Errorf("%w: %w", ErrUnfinished, err)
			return err
		}
		v.alloc.setClosed(removed, false)
		return err
	}
	if err := geomlib.StoreMetadata(gone.accounted(), leaving(gone.meta(), last)); err != nil {
		return err
	}
	m := moved.meta()
	m.No = removed
	if v.cfg.breaks(breakRenaming) {
		m.No = last
	}
	if err := geomlib.StoreMetadata(moved.accounted(), m); err != nil {
		return err
	}
	moved.setMeta(m)
	// From here on both indexes name the moved component.
	both := slices.Clone(comps)
	both[removed] = moved
	v.committer.pause()
	v.setComponents(both)
	v.alloc.renumber(removed, last)
	v.committer.unpause()
	if err := v.renumberChunks(last, removed); err != nil {
		return err
	}
	if err := v.component(0).flush(); err != nil {
		return err
	}
	moved.setNo(removed)
	n := int(last)
	if err := v.storeCount(comps[0], n); err != nil {
		return err
	}
	for _, c := range both[1:n] {
		if err := v.storeCount(c, n); err != nil {
			v.log.Warn("component keeps an old count until the next start", "component", c.name(), "error", err)
		}
	}
	if err := v.forgetIndex(both[:n:n]); err != nil {
		return err
	}
	err = v.writeExtensionLocked(func(e *ondisk.Extension) {
		e.Intent = ondisk.Intent{}
		e.Task = renumberTask(e.Task, removed, last)
	})
	if err != nil {
		return err
	}
	return geomlib.ClearMetadata(gone.accounted())
}

// forgetIndex makes comps the list, when nothing names the index after them.
func (v *Volume) forgetIndex(comps []*component) error {
	v.committer.pause()
	defer v.committer.unpause()
	if err := v.settleFreed(); err != nil {
		return err
	}
	v.setComponents(comps)
	v.alloc.truncate(len(comps))
	return nil
}

// renumberTask makes a task that is under way name the components as they are
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
	for vc := v.chunks.nextAllocated(0, n); vc < n; vc = v.chunks.nextAllocated(vc+1, n) {
		if physOf(v.chunks.load(vc)).comp != from {
			continue
		}
		ph, ok := v.chunks.lock(vc)
		if !ok {
			continue
		}
		if ph.comp != from {
			v.chunks.unlock(vc, wordOf(ph), v.resume)
			continue
		}
		ops = append(ops, mapOp{vc: vc, old: ph, new: phys{to, ph.chunk}, set: true, same: true})
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

// settleFreed waits until chunks that were freed are free.
func (v *Volume) settleFreed() error {
	for v.freed.pending() > 0 {
		if err := v.component(0).flush(); err != nil {
			return err
		}
		v.freed.wait()
	}
	return nil
}
