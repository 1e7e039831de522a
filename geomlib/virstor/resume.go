package virstor

import (
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// resumeTask starts again the job that a crash or a stop interrupted. What
// cannot go on is said and forgotten, unless that may be because of components that take
// no writes: then a later start tries again.
func (v *Volume) resumeTask() {
	t := v.ext.rec.Task
	if !v.ext.room || t.Kind == ondisk.TaskNone {
		return
	}
	opt := JobOptions{Rate: int64(t.Arg[0])}
	var err error
	for _, k := range jobKinds() {
		switch {
		case k.task != t.Kind:
		case v.cond.is(stateStranded) && !k.leaves:
			return // it waits for component 0 to leave
		default:
			err = k.resume(v, t, opt)
		}
	}
	if err == nil {
		v.log.Info("an interrupted job goes on", "job", t.Kind.String())
		return
	}
	if v.anyRefused() {
		// Without it there may be no room, or nobody to take what moves.
		v.log.Error("an interrupted job waits for the components that take no writes", "job", t.Kind.String(), "error", err)
		return
	}
	v.log.Error("an interrupted job cannot go on", "job", t.Kind.String(), "error", err)
	if v.cond.is(stateStranded) {
		return
	}
	if err := v.setTask(ondisk.Task{}); err != nil {
		v.log.Error("the interrupted job stays noted", "error", err)
	}
}

// anyRefused reports whether a component takes no writes.
func (v *Volume) anyRefused() bool {
	return slices.ContainsFunc(v.components(), func(c *component) bool { return c.refused.Load() })
}

// resumeResize goes on with a resize. One that cannot go on leaves the size that is
// labelled.
func (v *Volume) resumeResize(t ondisk.Task, opt JobOptions) error {
	size, force := int64(t.Arg[1]), t.Arg[2] != 0
	err := v.resizable(size, force)
	if err == nil {
		err = v.startResize(size, force, opt)
	}
	if err != nil {
		v.size.Store(v.labelledSize())
	}
	return err
}

// resumeEvacuation goes on with an evacuation or a replacement.
func (v *Volume) resumeEvacuation(t ondisk.Task, opt JobOptions) error {
	comps := v.components()
	var leaving []*component
	byID := make(map[uint64]*component)
	for _, c := range comps {
		byID[c.member] = c
	}
	for n, i := range t.Components[:t.ComponentCount] {
		switch id := t.Members[n]; {
		case id != 0 && !v.cfg.breaks(breakTaskNumbers):
			if c := byID[id]; c != nil {
				leaving = append(leaving, c)
			}
		case int(i) < len(comps): // as the first release noted it
			leaving = append(leaving, comps[i])
		}
	}
	if len(leaving) == 0 {
		return v.setTask(ondisk.Task{})
	}
	to := byID[t.Target]
	if to == nil && t.Target == 0 && t.Kind == ondisk.TaskReplace && t.Arg[1] < uint64(len(comps)) {
		to = comps[t.Arg[1]]
	}
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	if v.cond.is(stateStranded) {
		if !v.zeroFails(leaving) {
			return v.cond.refusal(deedAllocate)
		}
		return v.startUnwritten(leaving, to, t, opt)
	}
	if err := v.roomFor(leaving, to); err != nil {
		return err
	}
	return v.startEvacuation(leaving, to, t, opt)
}
