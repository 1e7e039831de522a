package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

// leftovers asks the publishers which of the volumes not served yet have devices
// that wait.
func (d *Daemon) leftovers() (map[uint32][]string, error) {
	all := make(map[uint32][]string)
	for _, p := range d.publishers {
		durable, ok := p.(publish.Durable)
		if !ok {
			continue
		}
		left, err := durable.Leftovers()
		if err != nil {
			return nil, fmt.Errorf("look for devices that a former daemon left: %w", err)
		}
		maps.Copy(all, left)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.volumes {
		delete(all, s.vol.ID())
	}
	return all, nil
}

// withLeft are names and the providers of left.
func withLeft(names []string, left map[uint32][]string) []string {
	all := slices.Clone(names)
	for _, id := range slices.Sorted(maps.Keys(left)) {
		all = append(all, left[id]...)
	}
	return all
}

// takeOver serves the volumes in left from providers opened for reading: their
// reads at once, the rest when the providers could be opened for writing.
func (d *Daemon) takeOver(left map[uint32][]string) (fresh []*served, problems []control.Problem) {
	for _, a := range virstor.Assemble(slices.Collect(maps.Values(d.loose))) {
		if _, ok := left[a.ID]; !ok || a.Err != nil {
			continue
		}
		s, err := d.serveOne(a, true)
		if err != nil {
			if _, kept := d.loose[a.Members[0].Provider.Name()]; kept {
				// An operation that must be finished first, perhaps.
				d.log.Warn("a device waits until its volume can be opened for writing", "volume", a.Name, "error", err)
				continue
			}
			problems = append(problems, control.Problem{Volume: a.Name, ID: ondisk.VolumeID(a.ID), Reason: err.Error()})
			continue
		}
		problems = append(problems, d.tidy(a)...)
		if !d.opt.ReadOnly {
			s.takeover = publish.StartTask(func(ctx context.Context) { d.activate(ctx, s) })
		}
		fresh = append(fresh, s)
	}
	return fresh, problems
}

// reopen opens for writing what was opened for reading and is still loose.
func (d *Daemon) reopen() (problems []control.Problem) {
	opens := d.openAhead(false)
	defer opens.close()
	for name, old := range d.loose {
		opens.begin(name, old.Provider.SectorSize())
	}
	for name, old := range maps.Clone(d.loose) {
		delete(d.loose, name)
		m, err := opens.member(name, old.Provider.SectorSize())
		old.Provider.Close() // not before: somebody else could have it then
		if err != nil {
			problems = append(problems, control.Problem{Providers: []string{name}, Reason: err.Error()})
			continue
		}
		d.loose[m.Provider.Name()] = m
	}
	return problems
}

// How often the providers of a volume that is being taken over are tried.
const (
	firstActivation = 100 * time.Millisecond
	lastActivation  = 10 * time.Second
)

// activate opens the volume's providers for writing, makes it writable, and has
// everything served. What the dead daemon locked may not be free at once.
func (d *Daemon) activate(ctx context.Context, s *served) {
	for pause := firstActivation; ; pause = min(2*pause, lastActivation) {
		err := d.activateOnce(ctx, s)
		if err == nil {
			break
		}
		d.log.Error("taken over for reading only, trying again", "volume", s.vol.Name(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
	for _, p := range s.pubs {
		if a, ok := p.(publish.Activator); ok {
			a.Activated()
		}
	}
	s.notes.take()
	d.takeovers.Add(1)
	s.watch.Look()
	d.log.Info("taken over", "volume", s.vol.Name())
}

func (d *Daemon) activateOnce(ctx context.Context, s *served) error {
	if len(s.writable) > 0 {
		return s.vol.Activate(nil) // they are the volume's since the last try
	}
	opens := d.openAhead(false)
	defer opens.close()
	for _, old := range s.vol.Providers() {
		opens.begin(old.Name(), old.SectorSize())
	}
	var ps []geomlib.Provider
	for _, old := range s.vol.Providers() {
		p, err := opens.open(old.Name(), old.SectorSize())
		if err != nil {
			for _, p := range ps {
				p.Close()
			}
			return err
		}
		ps = append(ps, p)
	}
	lease, err := d.takeActivationLease(ctx, s, ps)
	if err == nil {
		s.vol.UseLease(lease)
		err = s.vol.Activate(ps)
	}
	if s.vol.Providers()[0] == ps[0] {
		s.writable = ps
		return err
	}
	if lease != nil {
		err = errors.Join(err, lease.Keep())
	}
	for _, p := range ps {
		err = errors.Join(err, p.Close())
	}
	return err
}
