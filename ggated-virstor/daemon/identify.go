package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Identify implements control.Backend: it ends the service of a volume, gives it
// another name or id, and serves it again. When the change fails the volume is served
// as what it is then.
func (d *Daemon) Identify(ctx context.Context, name string, r control.IdentifyRequest) (control.VolumeStatus, error) {
	var none control.VolumeStatus
	s, err := d.findActive(name)
	if err != nil {
		return none, err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if err := d.mayIdentify(s, r); err != nil {
		return none, err
	}
	if r.DryRun {
		return s.status(), s.mayClose(r.Force)
	}
	was := s.vol.Name()
	n, err := d.whileClosed(ctx, s, r.Providers, r.Force, func(a *virstor.Assembly) error { return verbs.Identify(a, r, d.freshID, false, d.log) })
	if err != nil {
		return none, err
	}
	d.log.Info("volume has another name or id", "volume", n.vol.Name(), "id", fmt.Sprintf("%08x", n.vol.ID()), "former", was)
	return n.status(), nil
}

// mayIdentify refuses what could not be done or served afterwards. d.verbs is held.
func (d *Daemon) mayIdentify(s *served, r control.IdentifyRequest) error {
	if err := s.hasAll(r.Providers); err != nil {
		return err
	}
	if n := s.spares.Count(); n > 0 {
		return control.Errorf(control.Invalid, "%s has %d spares, which are labelled with its name and id: take them off first, and label them again afterwards", s.vol.Name(), n)
	}
	if r.Name == "" {
		return nil
	}
	if err := ondisk.CheckNewName(r.Name); err != nil {
		return control.Errorf(control.Invalid, "%v", err)
	}
	d.mu.Lock()
	other := d.volumes[r.Name]
	d.mu.Unlock()
	if other != nil && other != s {
		return control.Errorf(control.Invalid, "there is a volume named %s (id %08x) already", r.Name, other.vol.ID())
	}
	for _, m := range d.loose {
		if m.Metadata.Name == r.Name {
			return control.Errorf(control.Invalid, "there is a volume named %s (id %08x) already, which is not served", r.Name, m.Metadata.ID)
		}
	}
	return nil
}

// freshID is a random id that no volume here has.
func (d *Daemon) freshID() uint32 {
	taken := map[uint32]bool{0: true}
	for _, s := range d.all() {
		taken[s.vol.ID()] = true
	}
	for _, m := range d.loose {
		taken[m.Metadata.ID] = true
	}
	for {
		if id := rand.Uint32(); !taken[id] {
			return id
		}
	}
}
