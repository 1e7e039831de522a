package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// startJob is how the engine starts a job of one kind.
type startJob func(d *Daemon, s *served, a control.JobArgs, o virstor.JobOptions) error

var jobs = map[string]startJob{
	"evacuate": func(d *Daemon, s *served, a control.JobArgs, o virstor.JobOptions) error {
		return s.vol.Evacuate(s.componentNames(a.Providers), "", o)
	},
	"replace": (*Daemon).replace,
	"pack": func(_ *Daemon, s *served, _ control.JobArgs, o virstor.JobOptions) error {
		return s.vol.Pack(o)
	},
	"rebalance": func(_ *Daemon, s *served, _ control.JobArgs, o virstor.JobOptions) error {
		return s.vol.Rebalance(o)
	},
	"reclaim": func(_ *Daemon, s *served, _ control.JobArgs, o virstor.JobOptions) error {
		return s.vol.Reclaim(o)
	},
	"resize": func(_ *Daemon, s *served, a control.JobArgs, o virstor.JobOptions) error {
		return s.vol.Resize(a.Size, a.Force, o)
	},
}

// StartJob implements control.Backend. A volume does one job at a time, so the
// volume's name is the job's.
func (d *Daemon) StartJob(_ context.Context, name string, r control.JobRequest) (control.JobStatus, error) {
	start := jobs[r.Kind]
	if start == nil {
		return control.JobStatus{}, control.Errorf(control.Invalid, "unknown job %q", r.Kind)
	}
	var a control.JobArgs
	if len(r.Args) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Args))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&a); err != nil {
			return control.JobStatus{}, control.Errorf(control.Invalid, "arguments of %s: %v", r.Kind, err)
		}
	}
	s, err := d.findActive(name)
	if err != nil {
		return control.JobStatus{}, err
	}
	if err := start(d, s, a, virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun}); err != nil {
		return control.JobStatus{}, classify(err)
	}
	return d.Job(context.Background(), s.vol.Name())
}

// replace moves everything from one component to another, which is added first
// if it is none.
func (d *Daemon) replace(s *served, a control.JobArgs, o virstor.JobOptions) error {
	if len(a.Providers) != 1 || a.Target == "" {
		return control.Errorf(control.Invalid, "replace: one component to leave and one to take its place are needed")
	}
	if !s.isComponent(a.Target) && !o.DryRun {
		if err := d.Add(context.Background(), s.vol.Name(), control.AddRequest{Providers: []string{a.Target}}); err != nil {
			return err
		}
	}
	names := s.componentNames(append([]string{a.Target}, a.Providers...))
	return s.vol.Evacuate(names[1:], names[0], o)
}

// Job implements control.Backend.
func (d *Daemon) Job(_ context.Context, id string) (control.JobStatus, error) {
	s, err := d.find(id)
	if err != nil {
		return control.JobStatus{}, err
	}
	j, ok := s.vol.Job()
	if !ok {
		return control.JobStatus{}, control.Errorf(control.NotFound, "%s has had no job since it was started", id)
	}
	return *s.job(j), nil
}

// CancelJob implements control.Backend.
func (d *Daemon) CancelJob(ctx context.Context, id string) (control.JobStatus, error) {
	s, err := d.find(id)
	if err != nil {
		return control.JobStatus{}, err
	}
	if err := s.vol.CancelJob(); err != nil && !errors.Is(err, virstor.ErrNoJob) {
		return control.JobStatus{}, err
	}
	return d.Job(ctx, id)
}

func (s *served) job(j virstor.JobStatus) *control.JobStatus {
	c := &control.JobStatus{
		ID: s.vol.Name(), Volume: s.vol.Name(), Kind: j.Kind, State: control.JobState(j.State.String()),
		Done: j.Done, Total: j.Total, Result: j.Result, Started: time.Now().Add(-j.Elapsed),
	}
	if sec := j.Elapsed.Seconds(); sec > 0 {
		c.Rate = int64(float64(j.Done) / sec)
	}
	if j.Err != nil && j.State == virstor.JobFailed {
		c.Error = j.Err.Error()
	}
	return c
}
