package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// The kinds of jobs, as JobStatus.Kind has them.
const (
	jobEvacuate  = "evacuate"
	jobReplace   = "replace"
	jobPack      = "pack"
	jobRebalance = "rebalance"
	jobReclaim   = "reclaim"
	jobResize    = "resize"
)

// jobKind is a row of the table of jobs.
type jobKind struct {
	name   string
	task   ondisk.TaskKind // as which it is noted, for the next start to go on with
	leaves bool            // components leave by it: component 0, too, if it takes no writes any more
	JobTraits
	start func(v *Volume, a JobArgs) error
	// resume starts what a crash or a stop interrupted.
	resume func(v *Volume, t ondisk.Task, o JobOptions) error
}

// JobTraits are what a kind of job asks of whoever starts it.
type JobTraits struct {
	Joins   bool // JobArgs.Joins may be set
	Drained bool // no request of a client that is gone may be at work: it was meant for the volume as it is
}

// jobKinds is the table of jobs.
func jobKinds() []jobKind {
	return []jobKind{
		{name: jobEvacuate, task: ondisk.TaskEvacuate, leaves: true, resume: (*Volume).resumeEvacuation,
			start: func(v *Volume, a JobArgs) error { return v.Evacuate(a.Components, "", a.JobOptions) }},
		{name: jobReplace, task: ondisk.TaskReplace, leaves: true, JobTraits: JobTraits{Joins: true},
			start: (*Volume).startReplace, resume: (*Volume).resumeEvacuation},
		plainJob(jobPack, ondisk.TaskPack, (*Volume).Pack),
		plainJob(jobRebalance, ondisk.TaskRebalance, (*Volume).Rebalance),
		plainJob(jobReclaim, ondisk.TaskReclaim, (*Volume).Reclaim),
		{name: jobResize, task: ondisk.TaskResize, JobTraits: JobTraits{Drained: true}, resume: (*Volume).resumeResize,
			start: func(v *Volume, a JobArgs) error { return v.Resize(a.Size, a.Force, a.JobOptions) }},
	}
}

// plainJob is a job that is about the whole volume, and that is resumed by starting it
// again.
func plainJob(name string, task ondisk.TaskKind, start func(*Volume, JobOptions) error) jobKind {
	return jobKind{name: name, task: task,
		start:  func(v *Volume, a JobArgs) error { return start(v, a.JobOptions) },
		resume: func(v *Volume, _ ondisk.Task, o JobOptions) error { return start(v, o) },
	}
}

// JobKinds are all values of JobStatus.Kind.
func JobKinds() []string {
	var names []string
	for _, k := range jobKinds() {
		names = append(names, k.name)
	}
	return names
}

// TraitsOfJob tells what a kind of job asks of whoever starts it: nothing, of one that
// there is not.
func TraitsOfJob(kind string) JobTraits {
	for _, k := range jobKinds() {
		if k.name == kind {
			return k.JobTraits
		}
	}
	return JobTraits{}
}

// JobArgs are the arguments of a job. Each kind uses those that concern it.
type JobArgs struct {
	JobOptions
	Components []string // evacuate, replace: the names of those that leave
	Target     string   // replace: the name of the component that takes their chunks
	// Joins is a provider, no component yet, that takes them instead of Target. The
	// volume owns it; on error it is closed and no component.
	Joins geomlib.Provider
	Size  int64 // resize: bytes
	// Force: what lies beyond the new end is given up (resize); Joins may be labelled
	// for another volume (replace, AddOptions).
	Force bool
}

// StartJob starts a job of one of JobKinds (ErrJobKind, ErrJobRunning, and what the
// method of that name returns). Components have the names that the volume knows them by.
func (v *Volume) StartJob(kind string, a JobArgs) error {
	for _, k := range jobKinds() {
		if k.name == kind && (a.Joins == nil || k.Joins) {
			return k.start(v, a)
		}
	}
	err := fmt.Errorf("%w %q", ErrJobKind, kind)
	if a.Joins != nil {
		err = errors.Join(err, a.Joins.Close())
	}
	return err
}

// startReplace starts a replacement by a provider that joins or by a component. One that
// holds data of its own is refused: whoever names it means another disk, and the volume
// would have less room afterwards than before. One that a replacement had begun to fill
// may go on.
func (v *Volume) startReplace(a JobArgs) error {
	if a.Joins != nil && len(a.Components) == 1 {
		return v.Replace(a.Components[0], a.Joins, a.Force, a.JobOptions)
	}
	if len(a.Components) != 1 || a.Target == "" {
		err := refuse(ErrRequest, "replace: one component to leave and one to take its place are needed")
		if a.Joins != nil {
			err = errors.Join(err, a.Joins.Close())
		}
		return err
	}
	for _, c := range v.Status().Components {
		if c.Name == a.Target && c.Used > 0 && !v.WasReplacing(a.Target) {
			return fmt.Errorf("replace on %s: %w: %s is in the volume already, and holds data; `gvirstor evacuate` moves a component's data to all others",
				v.name, ErrInUse, a.Target)
		}
	}
	return v.Evacuate(a.Components, a.Target, a.JobOptions)
}

// JobError is why a job could not be started, for whoever says himself which job of
// which volume that is.
type JobError struct {
	Job, Volume string
	Err         error
}

func (e *JobError) Error() string { return e.Job + " " + e.Volume + ": " + e.Err.Error() }

// Unwrap is the error without what was attempted.
func (e *JobError) Unwrap() error { return e.Err }

// resumeTask starts again the job that a crash or a stop interrupted. What
// cannot go on is said and forgotten, unless that may be because of components that take
// no writes: then a later start tries again.
func (v *Volume) resumeTask() {
	t := v.meta.ext.rec.Task
	if !v.meta.ext.room || t.Kind == ondisk.TaskNone {
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
	r := resizing{v, int64(t.Arg[1]), t.Arg[2] != 0}
	err := r.mayStart()
	if err == nil {
		err = r.start(opt)
	}
	if err != nil {
		v.size.Store(v.labelledSize())
	}
	return err
}

// resumeEvacuation goes on with an evacuation or a replacement.
func (v *Volume) resumeEvacuation(t ondisk.Task, opt JobOptions) error {
	comps, e := v.components(), evacuation{v: v}
	byID := make(map[uint64]*component)
	for _, c := range comps {
		byID[c.member] = c
	}
	for n, i := range t.Components[:t.ComponentCount] {
		switch id := t.Members[n]; {
		case id != 0 && !v.cfg.breaks(breakTaskNumbers):
			if c := byID[id]; c != nil {
				e.leaving = append(e.leaving, c)
			}
		case int(i) < len(comps): // as the first release noted it
			e.leaving = append(e.leaving, comps[i])
		}
	}
	if len(e.leaving) == 0 {
		return v.setTask(ondisk.Task{})
	}
	e.to = byID[t.Target]
	if e.to == nil && t.Target == 0 && t.Kind == ondisk.TaskReplace && t.Arg[1] < uint64(len(comps)) {
		e.to = comps[t.Arg[1]]
	}
	if err := v.mapsWritable(e.leaving); err != nil {
		return err
	}
	v.job.starting.Lock()
	defer v.job.starting.Unlock()
	if v.cond.is(stateStranded) {
		if !e.zeroFails() {
			return v.cond.refusal(deedAllocate)
		}
		return e.startUnwritten(t, opt)
	}
	if err := e.mustFit(); err != nil {
		return err
	}
	return e.start(t, opt)
}
