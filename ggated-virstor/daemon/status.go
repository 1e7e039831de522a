package daemon

import (
	"context"
	"maps"
	"os"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Status implements control.Backend.
func (d *Daemon) Status(context.Context) (control.Status, error) {
	d.mu.Lock()
	st := control.Status{Version: d.opt.Version, PID: os.Getpid(), Started: d.started,
		Volumes: []control.VolumeStatus{}, Problems: append([]control.Problem{}, d.problems...)}
	var all []*served
	for _, name := range slices.Sorted(maps.Keys(d.volumes)) {
		all = append(all, d.volumes[name])
	}
	d.mu.Unlock()
	for _, s := range all {
		st.Volumes = append(st.Volumes, s.status())
	}
	return st, nil
}

// Volume implements control.Backend.
func (d *Daemon) Volume(_ context.Context, name string) (control.VolumeStatus, error) {
	s, err := d.find(name)
	if err != nil {
		return control.VolumeStatus{}, err
	}
	return s.status(), nil
}

func (s *served) status() control.VolumeStatus {
	v := control.FromEngine(s.vol.Status())
	for _, p := range s.pubs {
		v.Published = append(v.Published, p.Describe()...)
	}
	mode := control.Mode{Read: 1, Write: 1}
	if v.ReadOnly {
		mode.Write = 0
	}
	for i := range v.Components {
		v.Components[i].Mode = mode
	}
	if j, ok := s.vol.Job(); ok && j.State == virstor.JobRunning {
		v.Job = s.job(j)
	}
	return v
}
