package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
	"github.com/gvirstor/gvirstor/ondisk"
)

// all are the volumes in service, by name.
func (d *Daemon) all() []*served {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*served
	for _, name := range slices.Sorted(maps.Keys(d.volumes)) {
		all = append(all, d.volumes[name])
	}
	return all
}

// Metrics implements web.Source.
func (d *Daemon) Metrics() []web.VolumeMetrics {
	var vs []web.VolumeMetrics
	levels := d.alertOptions().Levels
	for _, s := range d.all() {
		vs = append(vs, s.metrics(levels))
	}
	return vs
}

// Takeovers implements web.Source.
func (d *Daemon) Takeovers() uint64 { return d.takeovers.Load() }

func (s *served) metrics(alerts space.Thresholds) web.VolumeMetrics {
	m := web.VolumeMetrics{
		Status: s.vol.Status(), CommitSizes: s.vol.CommitSizes(),
		Jobs: s.vol.JobTotals(), Kinds: virstor.JobKinds(),
		Ops: make(map[virstor.Op]virstor.OpStats), Raised: make(map[string]bool), Alerts: make(map[string]uint64),
	}
	if j, ok := s.vol.Job(); ok && j.State == virstor.JobRunning && !j.DryRun {
		m.Job = j
	}
	for _, op := range virstor.Ops() {
		m.Ops[op] = s.vol.OpStats(op)
	}
	active, secs, counts := s.watch.Report()
	m.SecondsToFull, m.SecondsToQuota = secs, s.watch.SecondsToQuota()
	for _, l := range alerts.Levels() {
		m.Levels = append(m.Levels, string(l))
		m.Alerts[string(l)] = 0 // a rate needs the zero before the first
	}
	for _, a := range active {
		m.Raised[string(a.Level)] = true
	}
	for l, n := range counts {
		m.Alerts[string(l)] = n
	}
	spares, added, failed := s.spares.Report()
	m.SparesAdded, m.SpareFailures = added, failed
	for _, sp := range spares {
		if sp.Err == nil {
			m.Spares++
		}
	}
	m.HookFailures = s.watch.HookFailures()
	return m
}

// Ready implements web.Health.
func (d *Daemon) Ready(context.Context) error {
	var err error
	d.mu.Lock()
	for _, p := range d.problems {
		err = errors.Join(err, fmt.Errorf("not served: %s %v: %s", p.Volume, printable(p.Providers), p.Reason))
	}
	d.mu.Unlock()
	for _, s := range d.all() {
		for _, c := range s.vol.Status().Components {
			for _, t := range c.Trouble {
				err = errors.Join(err, fmt.Errorf("%s: %s", s.vol.Name(), verbs.TroubleText(c.Name, t)))
			}
		}
		if s.vol.Deferred() {
			err = errors.Join(err, fmt.Errorf("%s is being taken over: reads alone are answered", s.vol.Name()))
		}
	}
	return err
}

// printable are names as people may be shown them.
func printable(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, ondisk.Printable(name))
	}
	return out
}
