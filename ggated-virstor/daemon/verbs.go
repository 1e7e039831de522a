package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// find looks a volume up by its name or by that of one of its nodes.
func (d *Daemon) find(name string) (*served, error) {
	name = strings.TrimPrefix(name, "/dev/")
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.volumes[name]; s != nil {
		return s, nil
	}
	for _, s := range d.volumes {
		for _, p := range s.pubs {
			if slices.Contains(p.Names(), name) {
				return s, nil
			}
		}
	}
	return nil, control.Errorf(control.NotFound, "Don't know anything about '%s'", name)
}

// findActive finds a volume that may be changed.
func (d *Daemon) findActive(name string) (*served, error) {
	s, err := d.find(name)
	if err == nil && s.vol.Deferred() {
		err = control.Errorf(control.Busy, "%s is being taken over from a daemon that died; try again", s.vol.Name())
	}
	return s, err
}

// classify gives an engine's error the kind that the control client decides by.
func classify(err error) error {
	var known *control.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	kind := control.Internal
	switch {
	case errors.Is(err, virstor.ErrInUse), errors.Is(err, virstor.ErrTooSmall), errors.Is(err, virstor.ErrSectorSize),
		errors.Is(err, virstor.ErrNotComponent), errors.Is(err, virstor.ErrComponentZero), errors.Is(err, virstor.ErrAllocated),
		errors.Is(err, virstor.ErrReadOnly), errors.Is(err, virstor.ErrRequest), errors.Is(err, virstor.ErrNoExtension),
		errors.Is(err, control.ErrJobKind), errors.Is(err, virstor.ErrLabelled):
		kind = control.Invalid
	case errors.Is(err, geomlib.ErrLocked), errors.Is(err, virstor.ErrJobRunning), errors.Is(err, virstor.ErrClosed):
		kind = control.Busy
	case errors.Is(err, virstor.ErrNoSpace):
		kind = control.NoSpace
	}
	return control.Errorf(kind, "%v", err)
}

// Serve implements control.Backend: it serves the volumes that the providers
// complete.
func (d *Daemon) Serve(_ context.Context, r control.ServeRequest) (control.ServeResult, error) {
	if len(r.Providers) == 0 {
		return control.ServeResult{}, control.Errorf(control.Invalid, "serve: no providers")
	}
	volumes, problems := d.serve(r.Providers, r.SectorSize)
	return control.ServeResult{Volumes: volumes, Problems: problems}, nil
}

// Release implements control.Backend: it closes providers of volumes that are not
// served. It knows nothing of others, which is no error.
func (d *Daemon) Release(_ context.Context, r control.ReleaseRequest) error {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	var err error
	for _, name := range r.Providers {
		if v := d.user(name); v != "" {
			return control.Errorf(control.Busy, "%s is used by %s, which is in service", name, v)
		}
		want := strings.TrimPrefix(name, "/dev/")
		for known, m := range d.loose {
			if strings.TrimPrefix(known, "/dev/") != want {
				continue
			}
			err = errors.Join(err, m.Provider.Close())
			delete(d.loose, known)
			d.log.Info("let go, for somebody else to change it", "provider", known, "volume", m.Metadata.Name)
		}
	}
	return err
}

// user is the volume in service that a provider is a component or a spare of.
func (d *Daemon) user(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.volumes {
		if s.isComponent(name) || s.spares.Holds(name) {
			return s.vol.Name()
		}
	}
	return ""
}

// Add implements control.Backend.
func (d *Daemon) Add(ctx context.Context, name string, r control.AddRequest) error {
	if len(r.Providers) == 0 {
		return control.Errorf(control.Invalid, "add: no providers")
	}
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	ps, err := d.openFree(s, r)
	if err == nil {
		err = s.mayAdd(ctx, ps)
	}
	if err == nil {
		err = s.vol.Add(ps, virstor.AddOptions{Hardcode: r.Hardcode})
	}
	if err != nil {
		for _, p := range ps {
			p.Close()
		}
		return classify(err)
	}
	s.tellKeptBlocks(ps, d.log)
	return nil
}

// openFree opens providers that may become components.
func (d *Daemon) openFree(s *served, r control.AddRequest) ([]geomlib.Provider, error) {
	var ps []geomlib.Provider
	for _, name := range r.Providers {
		if s.isComponent(name) {
			return ps, control.Errorf(control.Invalid, "Component %s already in %s", name, s.vol.Name())
		}
		size := r.SectorSize
		if size == 0 {
			size = s.vol.SectorSize()
		}
		p, err := d.opener.Open(name, false, size)
		if errors.Is(err, fs.ErrNotExist) {
			return ps, control.Errorf(control.Invalid, "Provider not found: %q", name) // the kernel class's words
		}
		if err != nil {
			return ps, err
		}
		ps = append(ps, p)
		if err := virstor.Unlabelled(p, s.vol.ID()); err != nil {
			return ps, err
		}
	}
	return ps, nil
}

// Remove implements control.Backend.
func (d *Daemon) Remove(_ context.Context, name string, r control.RemoveRequest) error {
	if len(r.Providers) == 0 {
		return control.Errorf(control.Invalid, "remove: no providers")
	}
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	for _, c := range s.componentNames(r.Providers) {
		if err := s.vol.Remove(c); err != nil {
			return classify(err)
		}
	}
	return nil
}

// isComponent reports whether a provider, named with or without /dev/, is one.
func (s *served) isComponent(name string) bool {
	for _, p := range s.vol.Providers() {
		if strings.TrimPrefix(p.Name(), "/dev/") == strings.TrimPrefix(name, "/dev/") {
			return true
		}
	}
	return false
}

// componentNames are the names under which the volume knows providers that may
// be given with or without /dev/.
func (s *served) componentNames(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = name
		for _, p := range s.vol.Providers() {
			if strings.TrimPrefix(p.Name(), "/dev/") == strings.TrimPrefix(name, "/dev/") {
				out[i] = p.Name()
			}
		}
	}
	return out
}

// Stop implements control.Backend: it ends a volume and hands it back to the
// kernel class where it can.
func (d *Daemon) Stop(ctx context.Context, name string, r control.StopRequest) (control.StopResult, error) {
	s, err := d.findActive(name)
	if err != nil {
		return control.StopResult{}, err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	// What has begun is finished even if the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err = d.takeDown(ctx, s, r.Force); control.KindOf(err) == control.Busy {
		return control.StopResult{}, err
	}
	s.backup.keep()
	err = errors.Join(err, s.close(ctx, true))
	var kept *virstor.NotHandedBackError
	if errors.As(err, &kept) {
		d.log.Info("volume stopped; it stays fenced from the kernel class", "volume", s.vol.Name(), "why", kept.Reasons)
		return control.StopResult{Reasons: kept.Reasons}, nil
	}
	if err != nil {
		return control.StopResult{}, classify(err)
	}
	d.log.Info(fmt.Sprintf("GEOM_VIRSTOR: Device %s destroyed.", s.vol.Name()))
	return control.StopResult{HandedBack: true}, nil
}

// takeDown withdraws a volume from service, for the caller to close it. An Error of
// kind Busy leaves it in service; after any other error it is withdrawn. d.verbs is
// held.
func (d *Daemon) takeDown(ctx context.Context, s *served, force bool) error {
	if n, what := s.users(); n > 0 && !force {
		return control.Errorf(control.Busy, "%s: Device busy (%s; -f disconnects)", s.vol.Name(), what)
	}
	if force {
		// What waits for space fails with ENOSPC, and nothing begins to wait.
		s.vol.SetFull(virstor.Fail, 0)
		s.vol.FailHeld()
		for _, p := range s.pubs {
			p.Disconnect()
		}
	}
	err := s.withdraw(ctx)
	if errors.Is(err, publish.ErrInUse) { // opened since
		c := d.opt.policies(s.vol.Name())
		s.vol.SetFull(c.WhenFull, c.FullTimeout)
		return control.Errorf(control.Busy, "%s: %v", s.vol.Name(), err)
	}
	d.mu.Lock()
	delete(d.volumes, s.vol.Name())
	d.mu.Unlock()
	return err
}

// Subscribe implements control.Backend.
func (d *Daemon) Subscribe(ctx context.Context) (<-chan control.Event, error) {
	return d.hub.Subscribe(ctx)
}
