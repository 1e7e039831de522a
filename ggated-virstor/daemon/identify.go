package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/gvirstor/gvirstor/geomlib"
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
	if err := s.mayTakeDown(r.Force); err != nil {
		return none, err
	}
	// What has begun is finished even if the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err = d.takeDown(ctx, s, r.Force); control.KindOf(err) == control.Busy {
		return none, err
	}
	was, sector := s.vol.Name(), s.vol.SectorSize()
	if err = errors.Join(err, s.close(ctx, false)); err != nil {
		return none, classify(err)
	}
	err = d.reidentify(r, sector)
	fresh, problems := d.assemble(nil)
	for _, n := range fresh {
		for _, p := range r.Providers {
			if n.isComponent(p) && err == nil {
				d.log.Info("volume has another name or id", "volume", n.vol.Name(), "id", fmt.Sprintf("%08x", n.vol.ID()), "former", was)
				return n.status(), nil
			}
		}
	}
	for _, p := range problems {
		err = errors.Join(err, fmt.Errorf("%s: %s", p.Volume, p.Reason))
	}
	if err == nil {
		err = fmt.Errorf("%s is not served any more", was)
	}
	return none, classify(err)
}

// mayIdentify refuses what could not be done or served afterwards. d.verbs is held.
func (d *Daemon) mayIdentify(s *served, r control.IdentifyRequest) error {
	if len(r.Providers) != len(s.vol.Providers()) {
		return control.Errorf(control.Invalid, "%s has %d components, the request names %d: ask again", s.vol.Name(), len(s.vol.Providers()), len(r.Providers))
	}
	for _, p := range r.Providers {
		if !s.isComponent(p) {
			return control.Errorf(control.Invalid, "%s is no component of %s: ask again", p, s.vol.Name())
		}
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

// reidentify opens the components of a closed volume again, and changes who they are.
// They are loose afterwards, whatever becomes of it. d.verbs is held.
func (d *Daemon) reidentify(r control.IdentifyRequest, sector int) error {
	var members []virstor.Member
	for _, name := range r.Providers {
		m, err := d.openMember(name, sector, false)
		if err != nil {
			return err
		}
		d.loose[m.Provider.Name()] = m
		members = append(members, m)
	}
	err := d.change(members, r)
	for _, m := range members {
		md, e := geomlib.ReadMetadata(m.Provider)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		d.loose[m.Provider.Name()] = virstor.Member{Provider: m.Provider, Metadata: md}
	}
	return err
}

// change gives the volume of members its name or id, under its lock.
func (d *Daemon) change(members []virstor.Member, r control.IdentifyRequest) (err error) {
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return fmt.Errorf("the components are of %d volumes: %w", len(as), virstor.ErrChanged)
	}
	lock, err := d.opener.LockVolume(as[0].ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return verbs.Identify(as[0], r, d.freshID, false, d.log)
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
