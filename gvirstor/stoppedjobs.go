package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func (s *stopped) mayLeave() bool { return false }

func (s *stopped) interrupt(j control.JobStatus) error {
	if err := s.vol.CancelJob(); err != nil && !errors.Is(err, virstor.ErrNoJob) {
		return failf("Can't end %s of %s: %w", j.Kind, j.Volume, err)
	}
	return failf("%s of %s was interrupted; the same command goes on with it", j.Kind, j.Volume)
}

// StartJob starts a job in this process.
func (s *stopped) StartJob(ctx context.Context, _ string, r control.JobRequest) (control.JobStatus, error) {
	var a control.JobArgs
	if err := json.Unmarshal(r.Args, &a); err != nil {
		return control.JobStatus{}, fmt.Errorf("arguments of %s: %w", r.Kind, err)
	}
	if err := s.startJob(r.Kind, a, virstor.JobOptions{Rate: a.Rate, DryRun: a.DryRun}); err != nil {
		return control.JobStatus{}, err
	}
	return s.Job(ctx, s.vol.Name())
}

func (s *stopped) startJob(kind string, a control.JobArgs, o virstor.JobOptions) error {
	switch kind {
	case "evacuate":
		return s.vol.Evacuate(a.Providers, "", o)
	case "replace":
		return s.replace(a.Providers[0], a.Target, o)
	case "pack":
		return s.vol.Pack(o)
	case "rebalance":
		return s.vol.Rebalance(o)
	case "reclaim":
		return s.vol.Reclaim(o)
	case "resize":
		return s.vol.Resize(a.Size, a.Force, o)
	}
	return fmt.Errorf("%s needs the daemon", kind)
}

// replace moves everything from one component to another, which is added first if
// it is none.
func (s *stopped) replace(old, target string, o virstor.JobOptions) error {
	for _, p := range s.vol.Providers() {
		if p.Name() == target {
			return s.vol.Evacuate([]string{old}, target, o)
		}
	}
	p, err := s.open(target)
	if err != nil {
		return err
	}
	return s.vol.Replace(old, p, o)
}

// Job tells how far the job is.
func (s *stopped) Job(context.Context, string) (control.JobStatus, error) {
	j, ok := s.vol.Job()
	if !ok {
		return control.JobStatus{}, fmt.Errorf("%s has had no job", s.vol.Name())
	}
	return control.JobOf(s.vol.Name(), j), nil
}
