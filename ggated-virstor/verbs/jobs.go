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
func (e Engine) StartJob(ctx context.Context, _ string, r control.JobRequest) (control.JobStatus, error) {
	var a control.JobArgs
	if len(r.Args) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Args))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&a); err != nil {
			return control.JobStatus{}, control.Errorf(control.Invalid, "arguments of %s: %v", r.Kind, err)
		}
	}
	for i, name := range a.Providers {
		a.Providers[i], _ = e.Component(name)
	}
	if r.Kind == "resize" {
		if err := e.Host.Drain(ctx); err != nil {
			return control.JobStatus{}, control.Errorf(control.Busy, "requests of clients that are gone are still at work: %v", err)
		}
	}
	var err error
	if r.Kind == "replace" {
		err = e.replace(ctx, a)
	} else {
		err = e.start(r.Kind, a)
	}
	if err != nil {
		return control.JobStatus{}, Classify(err)
	}
	return e.Job(ctx, e.Vol.Name())
}

// start starts a job. Components have the names that the engine knows them by.
func (e Engine) start(kind string, a control.JobArgs) error {
	o := virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun}
	switch kind {
	case "evacuate":
		return e.Vol.Evacuate(a.Providers, "", o)
	case "replace":
		if err := e.mayReceive(a.Target); err != nil {
			return err
		}
		return e.Vol.Evacuate(a.Providers, a.Target, o)
	case "pack":
		return e.Vol.Pack(o)
	case "rebalance":
		return e.Vol.Rebalance(o)
	case "reclaim":
		return e.Vol.Reclaim(o)
	case "resize":
		return e.Vol.Resize(a.Size, a.Force, o)
	}
	return fmt.Errorf("%w %q", ErrJobKind, kind)
}

// replace moves everything from one component to another, which is added first if it is
// none.
func (e Engine) replace(ctx context.Context, a control.JobArgs) error {
	if len(a.Providers) != 1 || a.Target == "" {
		return control.Errorf(control.Invalid, "replace: one component to leave and one to take its place are needed")
	}
	if known, is := e.Component(a.Target); is {
		a.Target = known
		return e.start("replace", a)
	}
	ps, err := e.OpenFree([]string{a.Target}, 0)
	if err == nil {
		// The job outlives whoever asks for it.
		err = e.Host.MayAdd(context.WithoutCancel(ctx), ps)
	}
	if err != nil {
		closeAll(ps)
		return err
	}
	return e.Vol.Replace(a.Providers[0], ps[0], virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun})
}

// mayReceive refuses a component as the target of a replace that holds data of its
// own: whoever names one means another disk, and the volume would have less room
// afterwards than before. One that a replacement had begun to fill may go on.
func (e Engine) mayReceive(target string) error {
	for _, c := range e.Vol.Status().Components {
		if c.Name == target && c.Used > 0 && !e.Vol.WasReplacing(target) {
			return fmt.Errorf("replace on %s: %w: %s is in the volume already, and holds data; `gvirstor evacuate` moves a component's data to all others",
				e.Vol.Name(), virstor.ErrInUse, target)
		}
	}
	return nil
}

// Job is the running job, or the last one.
func (e Engine) Job(_ context.Context, id string) (control.JobStatus, error) {
	j, ok := e.Vol.Job()
	if !ok {
		return control.JobStatus{}, control.Errorf(control.NotFound, "%s has had no job since it was started", id)
	}
	return e.JobStatus(j), nil
}

// CancelJob ends the running job after the chunk at hand. It is no error that there is
// none.
func (e Engine) CancelJob(ctx context.Context, id string) (control.JobStatus, error) {
	if err := e.Vol.CancelJob(); err != nil && !errors.Is(err, virstor.ErrNoJob) {
		return control.JobStatus{}, err
	}
	return e.Job(ctx, id)
}

// JobStatus is a job of the volume as the engine tells of it.
func (e Engine) JobStatus(j virstor.JobStatus) control.JobStatus {
	c := control.JobStatus{
		ID: e.Vol.Name(), Volume: e.Vol.Name(), Kind: j.Kind, State: control.JobState(j.State.String()),
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
