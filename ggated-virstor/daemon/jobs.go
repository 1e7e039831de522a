package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
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
	old := s.componentNames(a.Providers)
	if s.isComponent(a.Target) {
		return s.vol.Evacuate(old, s.componentNames([]string{a.Target})[0], o)
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	ctx := context.Background()
	ps, err := d.openFree(s, control.AddRequest{Providers: []string{a.Target}})
	if err == nil {
		err = s.mayAdd(ctx, ps)
	}
	if err != nil {
		for _, p := range ps {
			err = errors.Join(err, p.Close())
		}
		return err
	}
	return s.vol.Replace(old[0], ps[0], o)
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
	c := control.JobOf(s.vol.Name(), j)
	return &c
}
