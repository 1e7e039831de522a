package verbs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// OpensTarget reports whether a job may open a provider that becomes a component.
func OpensTarget(r control.JobRequest) bool { return virstor.TraitsOfJob(r.Kind).Joins }

// StartJob starts a long job. An error does not say what was attempted: who asked for
// that job knows.
func (e Engine) StartJob(ctx context.Context, _ string, r control.JobRequest) (control.JobStatus, error) {
	var a control.JobArgs
	if len(r.Args) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Args))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&a); err != nil {
			return control.JobStatus{}, control.Errorf(control.Invalid, "arguments of %s: %v", r.Kind, err)
		}
	}
	args := virstor.JobArgs{JobOptions: virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun}, Target: a.Target, Size: a.Size, Force: a.Force}
	for _, name := range a.Providers {
		known, _ := e.Component(name)
		args.Components = append(args.Components, known)
	}
	traits := virstor.TraitsOfJob(r.Kind)
	if traits.Drained {
		if err := e.Host.Drain(ctx); err != nil {
			return control.JobStatus{}, control.Errorf(control.Busy, "requests of clients that are gone are still at work: %v", err)
		}
	}
	var err error
	if traits.Joins && a.Target != "" {
		args.Target, args.Joins, err = e.target(ctx, a.Target, a.Force)
	}
	if err == nil {
		err = e.Vol.StartJob(r.Kind, args)
	}
	if err != nil {
		return control.JobStatus{}, Classify(withoutAttempt(err))
	}
	return e.Job(ctx, e.Vol.Name())
}

// target is the component that takes the place of another, or else a provider that
// becomes one for that.
func (e Engine) target(ctx context.Context, name string, force bool) (component string, joins geomlib.Provider, err error) {
	if known, is := e.Component(name); is {
		return known, nil, nil
	}
	ps, err := e.OpenFree(context.WithoutCancel(ctx), []string{name}, 0, force) // the job outlives whoever asks for it
	if err != nil {
		closeAll(ps)
		return "", nil, err
	}
	return "", ps[0], nil
}

// withoutAttempt is the error of a job without which job of which volume it is.
func withoutAttempt(err error) error {
	if j, ok := err.(*virstor.JobError); ok { // and nothing around it
		return j.Err
	}
	return err
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
		c.Error = withoutAttempt(j.Err).Error()
	}
	return c
}
