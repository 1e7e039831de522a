package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// StartJob implements control.Backend. A volume does one job at a time, so the
// volume's name is the job's.
func (d *Daemon) StartJob(_ context.Context, name string, r control.JobRequest) (control.JobStatus, error) {
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

// replace moves everything from one component to another, which is added first
// if it is none.
func (d *Daemon) replace(s *served, a control.JobArgs) error {
	if len(a.Providers) != 1 || a.Target == "" {
		return control.Errorf(control.Invalid, "replace: one component to leave and one to take its place are needed")
	}
	start := func() error {
		return control.StartEngineJob(s.vol, "replace", control.JobArgs{Providers: s.componentNames(a.Providers),
			Target: s.componentNames([]string{a.Target})[0], Rate: a.Rate, DryRun: a.DryRun})
	}
	old := s.componentNames(a.Providers)[0]
	switch {
	case s.isComponent(a.Target):
		return start()
	case a.DryRun:
		return d.dryReplace(s, old, a.Target)
	}
	if j, ok := s.vol.Job(); ok && j.State == virstor.JobRunning {
		return fmt.Errorf("replace: %w (%s)", virstor.ErrJobRunning, j.Kind)
	}
	fits := func(ps []geomlib.Provider) error {
		_, err := s.vol.MayReplace(old, ps[0].MediaSize())
		return err
	}
	if err := d.add(context.Background(), s, control.AddRequest{Providers: []string{a.Target}}, fits); err != nil {
		return err
	}
	err := start()
	if err != nil {
		// What was added for this alone has no business to stay.
		err = errors.Join(err, s.vol.Remove(s.componentNames([]string{a.Target})[0]))
	}
	return err
}

// dryReplace tells what replace would do with a provider that is no component.
func (d *Daemon) dryReplace(s *served, old, target string) error {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	ps, err := d.openFree(s, control.AddRequest{Providers: []string{target}})
	if err == nil {
		err = s.vol.DryReplace(old, ps[0].MediaSize())
	}
	for _, p := range ps {
		err = errors.Join(err, p.Close())
	}
	return err
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
