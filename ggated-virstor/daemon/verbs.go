package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// verb is one call that the control socket can make on a volume.
type verb func(d *Daemon, ctx context.Context, s *served, r control.Request) (control.Reply, error)

// verbs is the table of calls on a volume.
var verbs = map[string]verb{
	"add":    (*Daemon).add,
	"remove": (*Daemon).remove,
	"stop":   (*Daemon).stop,
	"flush":  (*Daemon).flush,
}

// Do implements control.Backend.
func (d *Daemon) Do(ctx context.Context, volume, name string, r control.Request) (control.Reply, error) {
	if volume == "" {
		if name != "serve" {
			return control.Reply{}, &control.Error{Kind: control.ErrInvalid, Text: "unknown call " + name}
		}
		return d.serveMore(r)
	}
	do := verbs[name]
	if do == nil {
		return control.Reply{}, &control.Error{Kind: control.ErrInvalid, Text: "unknown call " + name}
	}
	s, err := d.find(volume)
	if err != nil {
		return control.Reply{}, err
	}
	reply, err := do(d, ctx, s, r)
	return reply, classify(err)
}

func (d *Daemon) find(name string) (*served, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.volumes[name]; s != nil {
		return s, nil
	}
	return nil, &control.Error{Kind: control.ErrNotFound, Text: fmt.Sprintf("Don't know anything about '%s'", name)}
}

// classify gives an engine's error the kind that the control client decides by.
func classify(err error) error {
	var known *control.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	kind := control.ErrInternal
	switch {
	case errors.Is(err, virstor.ErrInUse), errors.Is(err, virstor.ErrTooSmall), errors.Is(err, virstor.ErrSectorSize),
		errors.Is(err, virstor.ErrNotComponent), errors.Is(err, virstor.ErrComponentZero):
		kind = control.ErrInvalid
	case errors.Is(err, virstor.ErrAllocated), errors.Is(err, virstor.ErrReadOnly), errors.Is(err, geomlib.ErrLocked):
		kind = control.ErrConflict
	case errors.Is(err, virstor.ErrNoSpace):
		kind = control.ErrNoSpace
	}
	return &control.Error{Kind: kind, Text: err.Error()}
}

// serveMore serves the volumes that new providers complete.
func (d *Daemon) serveMore(r control.Request) (control.Reply, error) {
	if len(r.Providers) == 0 {
		return control.Reply{}, &control.Error{Kind: control.ErrInvalid, Text: "serve: no providers"}
	}
	d.Serve(r.Providers)
	d.mu.Lock()
	defer d.mu.Unlock()
	var texts []string
	for _, p := range d.problems {
		texts = append(texts, strings.TrimSpace(p.Volume+" "+p.Provider+": "+p.Text))
	}
	return control.Reply{Notice: strings.Join(texts, "\n")}, nil
}

// add makes providers components of a volume.
func (d *Daemon) add(_ context.Context, s *served, r control.Request) (control.Reply, error) {
	if len(r.Providers) == 0 {
		return control.Reply{}, &control.Error{Kind: control.ErrInvalid, Text: "add: no providers"}
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	var ps []geomlib.Provider
	err := func() error {
		for _, name := range r.Providers {
			if d.isComponent(s, name) {
				return &control.Error{Kind: control.ErrInvalid,
					Text: fmt.Sprintf("Component %s already in %s", name, s.vol.Name())}
			}
			p, err := d.opener.Open(name, false)
			if err != nil {
				return err
			}
			ps = append(ps, p)
			if err := free(p, s.vol.ID()); err != nil {
				return err
			}
		}
		return s.vol.Add(ps, virstor.AddOptions{Hardcode: r.Hardcode})
	}()
	if err != nil {
		for _, p := range ps {
			p.Close()
		}
		return control.Reply{}, err
	}
	return control.Reply{}, nil
}

func (d *Daemon) isComponent(s *served, name string) bool {
	for _, p := range s.vol.Providers() {
		if strings.TrimPrefix(p.Name(), "/dev/") == strings.TrimPrefix(name, "/dev/") {
			return true
		}
	}
	return false
}

// free refuses a provider that is labelled as part of another volume.
func free(p geomlib.Provider, id uint32) error {
	m, err := geomlib.ReadMetadata(p)
	if errors.Is(err, geomlib.ErrNoMetadata) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.ID != id {
		return &control.Error{Kind: control.ErrInvalid,
			Text: fmt.Sprintf("%s is labelled as component %d of %s; `gvirstor clear %s` first if that is of no use any more",
				p.Name(), m.No, m.Name, p.Name())}
	}
	return nil
}

// remove takes components that hold no data out of a volume.
func (d *Daemon) remove(_ context.Context, s *served, r control.Request) (control.Reply, error) {
	if len(r.Providers) == 0 {
		return control.Reply{}, &control.Error{Kind: control.ErrInvalid, Text: "remove: no providers"}
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	for _, name := range r.Providers {
		if err := s.vol.Remove(d.componentName(s, name)); err != nil {
			return control.Reply{}, err
		}
	}
	return control.Reply{}, nil
}

// componentName is the name under which the volume knows a provider that may be
// given with or without /dev/.
func (d *Daemon) componentName(s *served, name string) string {
	for _, p := range s.vol.Providers() {
		if strings.TrimPrefix(p.Name(), "/dev/") == strings.TrimPrefix(name, "/dev/") {
			return p.Name()
		}
	}
	return name
}

// stop ends a volume and hands it back to the kernel class where it can.
func (d *Daemon) stop(ctx context.Context, s *served, r control.Request) (control.Reply, error) {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if n, what := s.users(); n > 0 && !r.Force {
		return control.Reply{}, &control.Error{Kind: control.ErrBusy,
			Text: fmt.Sprintf("%s: Device busy (%s; -f disconnects)", s.vol.Name(), what)}
	}
	if r.Force {
		s.vol.FailHeld()
		for _, p := range s.pubs {
			p.Disconnect()
		}
	}
	d.mu.Lock()
	delete(d.volumes, s.vol.Name())
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	err := s.end(ctx, true)
	var kept *virstor.NotHandedBackError
	if errors.As(err, &kept) {
		d.log.Info("volume stopped; it stays fenced from the kernel class", "volume", s.vol.Name(), "why", kept.Reasons)
		return control.Reply{Kept: true, Notice: kept.Error()}, nil
	}
	if err != nil {
		return control.Reply{}, err
	}
	d.log.Info(fmt.Sprintf("GEOM_VIRSTOR: Device %s destroyed.", s.vol.Name()))
	return control.Reply{}, nil
}

func (d *Daemon) flush(_ context.Context, s *served, _ control.Request) (control.Reply, error) {
	return control.Reply{}, s.vol.Flush()
}
