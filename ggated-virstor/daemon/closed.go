package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// hasAll refuses a request that names other components than the volume has.
func (s *served) hasAll(providers []string) error {
	if len(providers) != len(s.vol.Providers()) {
		return control.Errorf(control.Invalid, "%s has %d components, the request names %d: ask again", s.vol.Name(), len(s.vol.Providers()), len(providers))
	}
	for _, p := range providers {
		if !s.isComponent(p) {
			return control.Errorf(control.Invalid, "%s is no component of %s: ask again", p, s.vol.Name())
		}
	}
	return nil
}

// whileClosed ends the service of a volume, does change to what its components say when
// nobody has them open, and serves them again, with the spares that there were. When the
// change fails, or the closing, after which it is not begun, the volume is served as what it
// is then. providers are its components. force: even while it is used. Of one that is only
// read nobody is disturbed. d.verbs is held.
func (d *Daemon) whileClosed(ctx context.Context, s *served, providers []string, force bool, change func(*virstor.Assembly) error) (*served, error) {
	if err := s.mayClose(force); err != nil {
		return nil, err
	}
	// What has begun is finished even if the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	err := d.takeDown(ctx, s, force)
	if control.KindOf(err) == control.Busy {
		return nil, err
	}
	was, sector := s.vol.Name(), s.vol.SectorSize()
	spares, _, _ := s.spares.Report()
	for _, sp := range spares {
		d.spares[s.vol.ID()] = append(d.spares[s.vol.ID()], sp.Name)
	}
	if closing := errors.Join(err, s.close(ctx, false)); closing != nil {
		change = func(*virstor.Assembly) error { return closing }
	}
	err = d.changeClosed(providers, sector, change)
	fresh, problems := d.assemble(nil)
	if i := slices.IndexFunc(fresh, func(n *served) bool { return slices.ContainsFunc(providers, n.isComponent) }); i >= 0 {
		if err != nil {
			return nil, classify(fmt.Errorf("%w; %s is served again as it is", err, fresh[i].vol.Name()))
		}
		return fresh[i], nil
	}
	for _, p := range problems {
		err = errors.Join(err, fmt.Errorf("%s: %s", p.Volume, p.Reason))
	}
	out := fmt.Sprintf("%s is out of service until ggated-virstor starts again with all its components", was)
	if err == nil {
		return nil, classify(errors.New(out))
	}
	return nil, classify(fmt.Errorf("%w; %s", err, out))
}

// mayClose refuses what whileClosed would not begin with. d.verbs is held.
func (s *served) mayClose(force bool) error {
	if s.vol.ReadOnly() {
		return classify(fmt.Errorf("%s: %w", s.vol.Name(), virstor.ErrReadOnly))
	}
	return s.mayTakeDown(force)
}

// changeClosed opens the components of a closed volume again, and does change to it under
// its lock. They are loose afterwards, whatever becomes of it. d.verbs is held.
func (d *Daemon) changeClosed(providers []string, sector int, change func(*virstor.Assembly) error) error {
	opens := d.openAhead(false)
	defer opens.close()
	for _, name := range providers {
		opens.begin(name, sector)
	}
	var members []virstor.Member
	for _, name := range providers {
		m, err := opens.member(name, sector)
		if err != nil {
			return err
		}
		d.loose[m.Provider.Name()] = m
		members = append(members, m)
	}
	err := d.changeLocked(members, change)
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

// changeLocked does change to the volume of members under its lock.
func (d *Daemon) changeLocked(members []virstor.Member, change func(*virstor.Assembly) error) (err error) {
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return fmt.Errorf("the components are of %d volumes: %w", len(as), virstor.ErrChanged)
	}
	lock, err := d.opener.LockVolume(as[0].ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return d.changeLeased(as[0], lock, change)
}
