package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ondisk"
)

// spaceHost is the space.Host of one volume in service.
type spaceHost struct {
	d *Daemon
	s *served
}

func (h spaceHost) Name() string                     { return h.s.vol.Name() }
func (h spaceHost) ID() uint32                       { return h.s.vol.ID() }
func (h spaceHost) SpareOptions() space.SpareOptions { return h.d.spareOptions() }

func (h spaceHost) Figures() space.Figures {
	f := space.FiguresOf(h.s.vol.Status())
	f.Writable = !h.s.vol.ReadOnly() && !h.s.vol.Deferred()
	return f
}

func (h spaceHost) Open(name string, sectorSize int) (geomlib.Provider, error) {
	if sectorSize == 0 {
		sectorSize = h.s.vol.SectorSize()
	}
	return h.d.opener.Open(name, false, sectorSize)
}

func (h spaceHost) MayAdd(ctx context.Context, p geomlib.Provider) error {
	return h.d.mayAdd(ctx, h.s, []geomlib.Provider{p})
}

func (h spaceHost) Add(p geomlib.Provider) error {
	return h.s.vol.Add([]geomlib.Provider{p}, virstor.AddOptions{})
}

func (h spaceHost) Publish(a space.Alert) int {
	kind := "alert"
	if a.Recovered {
		kind = "recovery"
	}
	return h.d.hub.Publish(control.Event{Time: a.Time, Volume: a.Volume, Kind: kind, Text: a.Text})
}

// Spare implements control.Backend.
func (d *Daemon) Spare(ctx context.Context, name string, q control.SpareRequest) error {
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if s.vol.ReadOnly() {
		return control.Errorf(control.Invalid, "%s is read-only", s.vol.Name())
	}
	for _, name := range q.Providers {
		if q.Remove {
			err = s.spares.Remove(name)
		} else {
			err = d.labelSpare(ctx, s, name, q)
		}
		if errors.Is(err, space.ErrNoSpare) {
			return control.Errorf(control.Invalid, "%s is no spare of %s", name, s.vol.Name())
		}
		if err != nil {
			return classify(err)
		}
	}
	s.watch.Look()
	return nil
}

// labelSpare makes a provider a spare of s. d.verbs is held.
func (d *Daemon) labelSpare(ctx context.Context, s *served, name string, q control.SpareRequest) error {
	if s.spares.Holds(name) {
		return control.Errorf(control.Invalid, "%s already is a spare of %s", name, s.vol.Name())
	}
	ps, err := d.verbsOf(s).OpenFree(ctx, []string{name}, q.SectorSize, q.Force)
	if err == nil {
		err = s.vol.Fits(ps[0]) // what adding it would refuse when it matters
	}
	if err == nil {
		err = geomlib.StoreSpare(ps[0], s.vol.Name(), s.vol.ID())
	}
	if err != nil {
		for _, p := range ps {
			err = errors.Join(err, p.Close())
		}
		return err
	}
	s.spares.Take(name, ps[0])
	return nil
}

// spareError: the provider is no component but a spare.
type spareError struct{ label ondisk.Spare }

func (e *spareError) Error() string { return "a spare of " + ondisk.Printable(e.label.Name) }

// explainSpare is why a provider that is expected to be a spare, as of tells by
// provider, is none.
func explainSpare(of map[string]string, name string, err error) error {
	volume, expected := of[name]
	if expected && errors.Is(err, geomlib.ErrNoMetadata) {
		return fmt.Errorf("%s is no spare of %s: `gvirstor spare %s %s` makes it one", name, volume,
			ownfile.ShellWord(volume), ownfile.ShellWord(name))
	}
	if spare := (*spareError)(nil); expected && errors.As(err, &spare) && spare.label.Name != volume {
		return fmt.Errorf("%s is a spare of %s, not of %s", name, ondisk.Printable(spare.label.Name), volume)
	}
	return err
}

// lostSpare is a provider that is expected to be a spare and is not.
type lostSpare struct {
	volume, name string
	err          error
}

// handOutLost tells volumes in service of spares that they do not have. What is
// left are problems.
func (d *Daemon) handOutLost(lost []lostSpare) (problems []control.Problem) {
	for _, l := range lost {
		d.mu.Lock()
		s := d.volumes[l.volume]
		d.mu.Unlock()
		if s == nil || s.vol.ReadOnly() {
			problems = append(problems, control.Problem{Providers: []string{l.name}, Reason: l.err.Error()})
			continue
		}
		if !s.spares.Holds(l.name) && !s.isComponent(l.name) { // it may have been added meanwhile
			s.spares.Fail(l.name, l.err)
		}
	}
	return problems
}

// handOutSpares gives spares that were just found to volumes that are served
// already. d.verbs is held.
func (d *Daemon) handOutSpares() {
	for _, s := range d.all() {
		names := d.spares[s.vol.ID()]
		delete(d.spares, s.vol.ID())
		for _, name := range names {
			s.spares.Hold(name)
		}
	}
}

// Reserve implements control.Backend.
func (d *Daemon) Reserve(_ context.Context, name string, q control.ReserveRequest) error {
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	chunks := q.Chunks
	if q.Auto {
		chunks = virstor.ReserveAuto
	}
	if err := s.vol.SetReserve(chunks); err != nil {
		return classify(err)
	}
	d.log.Info("reserve changed", "volume", s.vol.Name(), "chunks", s.vol.Status().Reserved)
	return nil
}

// TestAlert implements control.Backend: it tells of a test through every channel, and
// what became of it.
func (d *Daemon) TestAlert(ctx context.Context, name string) (control.AlertTest, error) {
	s, err := d.findVolume(name)
	if err != nil {
		return control.AlertTest{}, err
	}
	r := s.watch.Test(ctx)
	command := control.AlertChannel{Name: "command", Result: "none is given (--on-alert)"}
	switch {
	case r.Err != nil:
		command.Result, command.Failed = r.Err.Error(), true
	case r.Runs:
		command.Result = fmt.Sprintf("done in %s", r.Took.Round(time.Millisecond))
	}
	return control.AlertTest{Channels: []control.AlertChannel{
		{Name: "log", Result: "written: " + r.Text},
		{Name: "events", Result: fmt.Sprintf("taken by %d who watch", r.Watching)},
		{Name: "metrics", Result: fmt.Sprintf("counted: %d tests so far", r.Count)},
		command,
	}}, nil
}
