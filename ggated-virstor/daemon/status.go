package daemon

import (
	"context"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// Status implements control.Backend.
func (d *Daemon) Status(context.Context) (control.Status, error) {
	d.mu.Lock()
	st := control.Status{Version: d.opt.Version, PID: os.Getpid(), Started: d.started,
		Volumes: []control.VolumeStatus{}, Problems: d.leaseProblems(append([]control.Problem{}, d.problems...))}
	d.mu.Unlock()
	for _, s := range d.all() {
		st.Volumes = append(st.Volumes, s.status())
	}
	return st, nil
}

// Volume implements control.Backend.
func (d *Daemon) Volume(_ context.Context, name string) (control.VolumeStatus, error) {
	s, err := d.findVolume(name)
	if err != nil {
		return control.VolumeStatus{}, err
	}
	return s.status(), nil
}

func (s *served) status() control.VolumeStatus {
	v := verbs.Status(s.vol.Status())
	for _, p := range s.pubs {
		v.Published = append(v.Published, p.Describe()...)
	}
	if len(v.Volumes) > 0 {
		shown := s.shown()
		for i := range v.Volumes {
			v.Volumes[i].Published = shown[publish.Title(v.Volumes[i].Name, "")]
		}
	}
	mode := control.Mode{Read: 1, Write: 1}
	if v.ReadOnly {
		mode.Write = 0
	}
	for i := range v.Components {
		v.Components[i].Mode = mode
	}
	if j, ok := s.vol.Job(); ok && j.State == virstor.JobRunning {
		job := verbs.Engine{Vol: s.vol}.JobStatus(j)
		v.Job = &job
	}
	v.Operations = make(map[string]control.OpStatus)
	for _, op := range virstor.Ops() {
		v.Operations[web.OpName(op)] = opStatus(s.vol.OpStats(op))
	}
	s.addAlerts(&v)
	return v
}

// opStatus is o without the buckets behind the last one that holds any.
func opStatus(o virstor.OpStats) control.OpStatus {
	n := len(o.Latency.Buckets)
	for n > 0 && o.Latency.Buckets[n-1] == 0 {
		n--
	}
	return control.OpStatus{Requests: o.Count, Bytes: o.Bytes, Errors: o.Errors, Nanoseconds: o.Latency.Sum, Buckets: slices.Clone(o.Latency.Buckets[:n])}
}

// predicted is a prediction in whole seconds; nil where there is none.
func predicted(secs float64) *int64 {
	if math.IsInf(secs, 1) {
		return nil
	}
	n := int64(min(secs, math.MaxInt64/2))
	return &n
}

// addAlerts adds what the daemon knows of the volume's space, and says all in
// the state.
func (s *served) addAlerts(v *control.VolumeStatus) {
	active, secs, _ := s.watch.Report()
	for _, a := range active {
		v.Alerts = append(v.Alerts, control.Alert{Level: string(a.Level), Since: a.Time, Text: a.Text})
	}
	low := slices.ContainsFunc(active, func(a space.Alert) bool {
		return a.Level == space.TimeToFull || strings.HasPrefix(string(a.Level), "percent-")
	})
	if low && !slices.Contains(v.Conditions, control.Full) {
		v.Conditions = append(v.Conditions, control.LowSpace)
	}
	v.SecondsToFull = predicted(secs)
	quotas := s.watch.SecondsToQuota()
	for i := range v.Volumes {
		if secs, ok := quotas[v.Volumes[i].ID]; ok {
			v.Volumes[i].SecondsToFull = predicted(secs)
		}
	}
	spares, added, _ := s.spares.Report()
	v.SparesAdded = added
	for _, sp := range spares {
		c := control.Spare{Name: sp.Name, Size: sp.Size}
		if sp.Err != nil {
			c.Failed = sp.Err.Error()
		}
		v.Spares = append(v.Spares, c)
	}
	v.State = v.StateText()
}
