package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
	"github.com/gvirstor/gvirstor/ondisk"
)

// findVolume looks a volume up by its name, by that of one of its nodes, or as status
// prints it.
func (d *Daemon) findVolume(name string) (*served, error) {
	name = geomlib.Name(name).Bare()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.volumes[name]; s != nil {
		return s, nil
	}
	if s := d.volumes[control.VolumeName(name)]; s != nil {
		return s, nil
	}
	for _, s := range d.volumes {
		for _, p := range s.pubs {
			if slices.Contains(p.Names(), name) {
				return s, nil
			}
		}
	}
	if pool, own := control.SplitName(name); own != "" && d.volumes[pool] != nil {
		return nil, control.Errorf(control.NotFound, "%s is not served, or is a further volume, of which this is not known: name %s", ondisk.Printable(name), pool)
	}
	return nil, control.Errorf(control.NotFound, "Don't know anything about '%s'", ondisk.Printable(name))
}

// findPool finds a volume, or the pool of a further one.
func (d *Daemon) findPool(name string) (*served, error) {
	s, err := d.findVolume(name)
	if err == nil {
		return s, nil
	}
	if pool, own := control.SplitName(name); own != "" {
		return d.findVolume(pool)
	}
	return nil, err
}

// findActivePool is findPool of one that may be changed.
func (d *Daemon) findActivePool(name string) (*served, error) {
	s, err := d.findPool(name)
	if err != nil {
		return nil, err
	}
	return d.findActive(s.vol.Name())
}

// findActive finds a volume that may be changed.
func (d *Daemon) findActive(name string) (*served, error) {
	s, err := d.findVolume(name)
	if err == nil && s.vol.Deferred() {
		err = control.Errorf(control.Busy, "%s is being taken over from a daemon that died; try again", s.vol.Name())
	}
	return s, err
}

// classify gives an engine's error the kind that the control client decides by.
func classify(err error) error { return verbs.Classify(err) }

// verbHost is the daemon as the verbs of a volume see it.
type verbHost struct {
	d *Daemon
	s *served
}

// Open implements verbs.Host.
func (h verbHost) Open(name string, sectorSize int) (geomlib.Provider, error) {
	if err := h.d.twin(name); err != nil {
		return nil, control.Errorf(control.Invalid, "%v", err)
	}
	return h.d.opener.Open(name, false, sectorSize)
}

// MayAdd implements verbs.Host.
func (h verbHost) MayAdd(ctx context.Context, ps []geomlib.Provider) error {
	return h.d.mayAdd(ctx, h.s, ps)
}

// Drain implements verbs.Host.
func (h verbHost) Drain(ctx context.Context) error { return h.s.drain(ctx) }

// verbsOf are the verbs of a volume that stays open.
func (d *Daemon) verbsOf(s *served) verbs.Engine {
	return verbs.Engine{Vol: s.vol, Host: verbHost{d, s}}
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
		for known, m := range d.loose {
			if !geomlib.Name(name).Same(known) {
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
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	v := d.verbsOf(s)
	if err := v.Add(ctx, name, r); err != nil {
		return err
	}
	d.followed(ctx, s) // who starts the volume next finds what is new
	added := slices.DeleteFunc(s.vol.Providers(), func(p geomlib.Provider) bool {
		return !slices.ContainsFunc(r.Providers, func(name string) bool {
			known, _ := v.Component(name)
			return known == p.Name()
		})
	})
	s.tellKeptBlocks(added, d.log)
	return nil
}

// Remove implements control.Backend.
func (d *Daemon) Remove(ctx context.Context, name string, r control.RemoveRequest) error {
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if err := d.verbsOf(s).Remove(ctx, name, r); err != nil {
		return err
	}
	d.followed(ctx, s)
	return nil
}

// isComponent reports whether a provider, named with or without /dev/, is one.
func (s *served) isComponent(name string) bool {
	_, is := verbs.Engine{Vol: s.vol}.Component(name)
	return is
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
	if err := s.mayTakeDown(r.Force); err != nil {
		return control.StopResult{}, err
	}
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

// mayTakeDown refuses, with an Error of kind Busy, what is used and is not to be taken
// away by force. It may wait for GEOM.
func (s *served) mayTakeDown(force bool) error {
	if force {
		return nil
	}
	if n, what := s.users(); n > 0 {
		return control.Errorf(control.Busy, "%s: Device busy (%s; -f disconnects)", s.vol.Name(), what)
	}
	return nil
}

// takeDown withdraws a volume from service that mayTakeDown lets go, for the caller to
// close it. An Error of kind Busy leaves it in service; after any other error it is
// withdrawn. d.verbs is held.
func (d *Daemon) takeDown(ctx context.Context, s *served, force bool) error {
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
