package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// StartJob implements control.Backend. A volume does one job at a time, so the
// volume's name is the job's.
func (d *Daemon) StartJob(ctx context.Context, name string, r control.JobRequest) (control.JobStatus, error) {
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
	if r.Kind == "resize" {
		if err := s.drain(ctx); err != nil {
			return control.JobStatus{}, control.Errorf(control.Busy, "requests of clients that are gone are still at work: %v", err)
		}
	}
	if r.Kind == "replace" {
		err = d.replace(s, a)
	} else {
		a.Providers = s.componentNames(a.Providers)
		err = control.StartEngineJob(s.vol, r.Kind, a)
	}
	if err != nil {
		return control.JobStatus{}, classify(err)
	}
	return d.Job(context.Background(), s.vol.Name())
}

// drainTime is how long a verb waits for requests of clients that are gone.
const drainTime = 30 * time.Second

// drain waits for requests of clients that are gone: what they have at work was
// meant for the volume as it is.
func (s *served) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for _, p := range s.pubs {
		if q, ok := p.(publish.Drainer); ok {
			if err := q.Drain(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace moves everything from one component to another, which is added first
// if it is none.
func (d *Daemon) replace(s *served, a control.JobArgs) error {
	if len(a.Providers) != 1 || a.Target == "" {
		return control.Errorf(control.Invalid, "replace: one component to leave and one to take its place are needed")
	}
	old := s.componentNames(a.Providers)
	if s.isComponent(a.Target) {
		a.Providers, a.Target = old, s.componentNames([]string{a.Target})[0]
		return control.StartEngineJob(s.vol, "replace", a)
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	ps, err := d.openFree(s, control.AddRequest{Providers: []string{a.Target}})
	if err == nil {
		err = s.mayAdd(context.Background(), ps)
	}
	if err != nil {
		for _, p := range ps {
			err = errors.Join(err, p.Close())
		}
		return err
	}
	return s.vol.Replace(old[0], ps[0], virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun})
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
	c := control.JobFromEngine(s.vol.Name(), j)
	return &c
}
