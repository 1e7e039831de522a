package virstor

import (
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ShortError tells how much room a job misses.
type ShortError struct {
	Job     string
	Volume  string
	Missing int64 // bytes
}

func (e *ShortError) Error() string {
	return fmt.Sprintf("%s on %s: %v: %d bytes are missing (add a component of that size)", e.Job, e.Volume, ErrNoSpace, e.Missing)
}

// Unwrap makes errors.Is(err, ErrNoSpace) true.
func (e *ShortError) Unwrap() error { return ErrNoSpace }

// Evacuate starts a job that moves all chunks off the named components and then
// removes these. With target, that component alone takes the chunks
// (replace). A start of the volume after a crash resumes it.
func (v *Volume) Evacuate(names []string, target string, opt JobOptions) error {
	leaving, to, err := v.evacuation(names, target)
	if err != nil {
		return err
	}
	task := ondisk.Task{Kind: ondisk.TaskEvacuate}
	if len(leaving) > len(task.Components) {
		return fmt.Errorf("evacuate %d components of %s at once: at most %d: %w", len(leaving), v.name, len(task.Components), ErrRequest)
	}
	for i, c := range leaving {
		task.Components[i] = uint32(c.no())
	}
	task.ComponentCount = uint8(len(leaving))
	if to != nil {
		task.Kind = ondisk.TaskReplace
		task.Arg[1] = uint64(to.no())
	}
	task.Arg[0] = uint64(opt.Rate)
	return v.startEvacuation(leaving, to, task, opt)
}

// evacuation finds the components, and refuses what cannot fit.
func (v *Volume) evacuation(names []string, target string) (leaving []*component, to *component, err error) {
	if !v.ext.room {
		return nil, nil, fmt.Errorf("evacuate %s: %w", v.name, ErrNoExtension)
	}
	byName := make(map[string]*component)
	for _, c := range v.components() {
		byName[c.name()] = c
	}
	for _, n := range names {
		c := byName[n]
		if c == nil {
			return nil, nil, fmt.Errorf("%s: %w of %s", n, ErrNotComponent, v.name)
		}
		if !slices.Contains(leaving, c) {
			leaving = append(leaving, c)
		}
	}
	if target != "" {
		if to = byName[target]; to == nil || slices.Contains(leaving, to) {
			return nil, nil, fmt.Errorf("%s: %w of %s that can take chunks", target, ErrNotComponent, v.name)
		}
	}
	if len(leaving) == len(v.components()) {
		return nil, nil, fmt.Errorf("evacuate all components of %s: %w", v.name, ErrRequest)
	}
	// What was freed before needs no room.
	if err := v.settleFreed(); err != nil {
		return nil, nil, fmt.Errorf("evacuate %s: %w", v.name, err)
	}
	return leaving, to, v.roomFor(leaving, to)
}

// roomFor checks that the chunks of leaving fit on the others, and so does
// the map if component 0 leaves.
func (v *Volume) roomFor(leaving []*component, to *component) error {
	var need, have int64
	zeroLeaves := false
	for i, c := range v.components() {
		total, free := v.alloc.counts(i)
		if slices.Contains(leaving, c) {
			need += int64(total - free)
			if v.lastSectorInUse(c) {
				need++
			}
			zeroLeaves = zeroLeaves || c.no() == 0
		} else if to == nil || c == to {
			have += int64(free)
		}
	}
	if zeroLeaves {
		need += int64(v.component(0).first())
	}
	if need > have {
		return &ShortError{"evacuate", v.name, (need - have) * v.chunk}
	}
	return nil
}

func (v *Volume) startEvacuation(leaving []*component, to *component, task ondisk.Task, opt JobOptions) error {
	kind := "evacuate"
	if to != nil {
		kind = "replace"
	}
	return v.startJob(kind, task, opt, func(j *jobHandle) error {
		if opt.DryRun {
			n := v.chunksWhere(func(p phys) bool { return slices.Contains(leaving, v.component(p.comp)) })
			j.total(int64(len(n)) * v.chunk)
			j.result("%d chunks, %d bytes, would be moved", len(n), int64(len(n))*v.chunk)
			return nil
		}
		return v.evacuate(j, leaving, to)
	})
}

// evacuate moves everything off leaving and removes it.
func (v *Volume) evacuate(j *jobHandle, leaving []*component, to *component) error {
	for _, c := range leaving {
		v.alloc.setClosed(c.no(), true)
	}
	err := v.empty(j, leaving, to)
	if err == nil && slices.Contains(leaving, v.component(0)) {
		err = v.handZeroOn(j, leaving, to)
	}
	if err != nil {
		for _, c := range leaving {
			v.alloc.setClosed(c.no(), false)
		}
		return err
	}
	for _, c := range leaving {
		if err := v.Remove(c.name()); err != nil {
			return err
		}
	}
	j.result("%d components left", len(leaving))
	return nil
}

// empty moves all chunks off leaving, until none is there and none on its way.
func (v *Volume) empty(j *jobHandle, leaving []*component, to *component) error {
	on := func(p phys) bool { return slices.Contains(leaving, v.component(p.comp)) }
	buf := make([]byte, min(moveBuffer, v.chunk))
	var left int64
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
			target, ok := v.takeFor(to)
			if !ok {
				left = int64(len(places)-i) * v.chunk
				return &ShortError{"evacuate", v.name, left}
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
	return v.settleFreed()
}

// takeFor takes a chunk of to, or of whichever component the order says.
func (v *Volume) takeFor(to *component) (phys, bool) {
	if to != nil {
		return v.alloc.takeFrom(to.no())
	}
	ps, ok := v.alloc.take(nil, 1, true)
	if !ok {
		return phys{}, false
	}
	return ps[0], true
}

// moveBuffer is how much of a chunk is copied at a time.
const moveBuffer = 1 << 20
