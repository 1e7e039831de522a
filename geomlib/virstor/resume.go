package virstor

import "github.com/gvirstor/gvirstor/ondisk"

// taskNone is the task of jobs that need not be resumed.
var taskNone = ondisk.Task{}

// resumeTask starts again the job that a crash or a stop interrupted. What
// cannot go on is said and forgotten.
func (v *Volume) resumeTask() {
	t := v.ext.rec.Task
	if !v.ext.room || t.Kind == ondisk.TaskNone {
		return
	}
	opt := JobOptions{Rate: int64(t.Arg[0])}
	var err error
	switch t.Kind {
	case ondisk.TaskEvacuate, ondisk.TaskReplace:
		err = v.resumeEvacuation(t, opt)
	case ondisk.TaskPack:
		err = v.Pack(opt)
	case ondisk.TaskRebalance:
		err = v.Rebalance(opt)
	}
	if err == nil {
		v.log.Info("an interrupted job goes on", "volume", v.name, "job", t.Kind.String())
		return
	}
	v.log.Error("an interrupted job cannot go on", "volume", v.name, "job", t.Kind.String(), "error", err)
	if err := v.setTask(taskNone); err != nil {
		v.log.Error("the interrupted job stays noted", "volume", v.name, "error", err)
	}
}

func (v *Volume) resumeEvacuation(t ondisk.Task, opt JobOptions) error {
	comps := v.components()
	var leaving []*component
	for _, i := range t.Components[:t.ComponentCount] {
		if int(i) < len(comps) {
			leaving = append(leaving, comps[i])
		}
	}
	if len(leaving) == 0 {
		return v.setTask(taskNone)
	}
	var to *component
	if t.Kind == ondisk.TaskReplace && t.Arg[1] < uint64(len(comps)) {
		to = comps[t.Arg[1]]
	}
	if err := v.roomFor(leaving, to); err != nil {
		return err
	}
	return v.startEvacuation(leaving, to, t, opt)
}
