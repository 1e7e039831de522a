package verbs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// ErrJobKind: there is no job of that name.
var ErrJobKind = errors.New("unknown job")

// OpensTarget reports whether a job opens a provider that becomes a component.
func OpensTarget(r control.JobRequest) bool { return r.Kind == "replace" }

// StartJob starts a long job.
func (v Volume) StartJob(ctx context.Context, _ string, r control.JobRequest) (control.JobStatus, error) {
	var a control.JobArgs
	if len(r.Args) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Args))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&a); err != nil {
			return control.JobStatus{}, control.Errorf(control.Invalid, "arguments of %s: %v", r.Kind, err)
		}
	}
	for i, name := range a.Providers {
		a.Providers[i], _ = v.Component(name)
	}
	if r.Kind == "resize" {
		if err := v.Host.Drain(ctx); err != nil {
			return control.JobStatus{}, control.Errorf(control.Busy, "requests of clients that are gone are still at work: %v", err)
		}
	}
	var err error
	if r.Kind == "replace" {
		err = v.replace(ctx, a)
	} else {
		err = v.start(r.Kind, a)
	}
	if err != nil {
		return control.JobStatus{}, Classify(err)
	}
	return v.Job(ctx, v.Engine.Name())
}

// start starts a job. Components have the names that the engine knows them by.
func (v Volume) start(kind string, a control.JobArgs) error {
	o := virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun}
	switch kind {
	case "evacuate":
		return v.Engine.Evacuate(a.Providers, "", o)
	case "replace":
		if err := v.mayReceive(a.Target); err != nil {
			return err
		}
		return v.Engine.Evacuate(a.Providers, a.Target, o)
	case "pack":
		return v.Engine.Pack(o)
	case "rebalance":
		return v.Engine.Rebalance(o)
	case "reclaim":
		return v.Engine.Reclaim(o)
	case "resize":
		return v.Engine.Resize(a.Size, a.Force, o)
	}
	return fmt.Errorf("%w %q", ErrJobKind, kind)
}

// replace moves everything from one component to another, which is added first if it is
// none.
func (v Volume) replace(ctx context.Context, a control.JobArgs) error {
	if len(a.Providers) != 1 || a.Target == "" {
		return control.Errorf(control.Invalid, "replace: one component to leave and one to take its place are needed")
	}
	if known, is := v.Component(a.Target); is {
		a.Target = known
		return v.start("replace", a)
	}
	ps, err := v.OpenFree([]string{a.Target}, 0)
	if err == nil {
		// The job outlives whoever asks for it.
		err = v.Host.MayAdd(context.WithoutCancel(ctx), ps)
	}
	if err != nil {
		closeAll(ps)
		return err
	}
	return v.Engine.Replace(a.Providers[0], ps[0], virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun})
}

// mayReceive refuses a component as the target of a replace that holds data of its
// own: whoever names one means another disk, and the volume would have less room
// afterwards than before. One that a replacement had begun to fill may go on.
func (v Volume) mayReceive(target string) error {
	for _, c := range v.Engine.Status().Components {
		if c.Name == target && c.Used > 0 && !v.Engine.WasReplacing(target) {
			return fmt.Errorf("replace on %s: %w: %s is in the volume already, and holds data; `gvirstor evacuate` moves a component's data to all others",
				v.Engine.Name(), virstor.ErrInUse, target)
		}
	}
	return nil
}

// Job is the running job, or the last one.
func (v Volume) Job(_ context.Context, id string) (control.JobStatus, error) {
	j, ok := v.Engine.Job()
	if !ok {
		return control.JobStatus{}, control.Errorf(control.NotFound, "%s has had no job since it was started", id)
	}
	return v.JobStatus(j), nil
}

// CancelJob ends the running job after the chunk at hand. It is no error that there is
// none.
func (v Volume) CancelJob(ctx context.Context, id string) (control.JobStatus, error) {
	if err := v.Engine.CancelJob(); err != nil && !errors.Is(err, virstor.ErrNoJob) {
		return control.JobStatus{}, err
	}
	return v.Job(ctx, id)
}

// JobStatus is a job of the volume as the engine tells of it.
func (v Volume) JobStatus(j virstor.JobStatus) control.JobStatus {
	c := control.JobStatus{
		ID: v.Engine.Name(), Volume: v.Engine.Name(), Kind: j.Kind, State: control.JobState(j.State.String()),
		Done: j.Done, Total: j.Total, Chunks: j.Moved, Result: j.Result, Started: time.Now().Add(-j.Elapsed),
	}
	if sec := j.Elapsed.Seconds(); sec > 0 {
		c.Rate = int64(float64(j.Done) / sec)
	}
	if j.Err != nil && j.State == virstor.JobFailed {
		c.Error = j.Err.Error()
	}
	return c
}
