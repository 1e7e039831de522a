// Package verbs does what the control API asks of one open volume, in whatever process
// it is open: in the daemon, which has it published, or in gvirstor, which opens a
// volume that is stopped for one verb.
package verbs

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/signature"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Host is the process that has a volume open.
type Host interface {
	// Open opens a provider for writing, with its exclusive lock. sectorSize, in
	// bytes, is that of a regular file. fs.ErrNotExist: there is no such provider.
	Open(name string, sectorSize int) (geomlib.Provider, error)
	// MayAdd refuses providers that cannot become components of the volume where it
	// is published. They stay the caller's.
	MayAdd(ctx context.Context, ps []geomlib.Provider) error
	// Drain returns when nothing of a client that is gone is at work.
	Drain(ctx context.Context) error
}

// Engine is an open volume as the verbs see it. Its methods fail with a *control.Error
// (Classify), and do not look at the name that they take: whoever found the volume by it
// has. What changes which providers are open must not be called twice at once, of any of
// the host's volumes: Add, and StartJob of what OpensTarget reports.
type Engine struct {
	Vol  *virstor.Volume
	Host Host
}

// Volume tells what the engine knows (Status).
func (e Engine) Volume(context.Context, string) (control.VolumeStatus, error) {
	return Status(e.Vol.Status()), nil
}

// Add makes providers components, all or none.
func (e Engine) Add(ctx context.Context, _ string, r control.AddRequest) error {
	if len(r.Providers) == 0 {
		return control.Errorf(control.Invalid, "add: no providers")
	}
	ps, err := e.OpenFree(ctx, r.Providers, r.SectorSize, r.Force)
	if err == nil {
		err = e.Vol.Add(ps, virstor.AddOptions{Hardcode: r.Hardcode, Force: r.Force})
	}
	if err != nil {
		closeAll(ps)
	}
	return Classify(err)
}

// closeAll closes providers that nothing was written to.
func closeAll(ps []geomlib.Provider) {
	for _, p := range ps {
		_ = p.Close()
	}
}

// OpenFree opens providers that belong to nothing and may become components. sectorSize,
// in bytes, is that of regular files; 0: that of the volume. Without force they must hold
// nothing that is known (HoldsData). What it has opened is the caller's, after an error,
// too.
func (e Engine) OpenFree(ctx context.Context, names []string, sectorSize int, force bool) (ps []geomlib.Provider, err error) {
	if sectorSize == 0 {
		sectorSize = e.Vol.SectorSize()
	}
	for _, name := range names {
		if _, is := e.Component(name); is {
			return ps, control.Errorf(control.Invalid, "Component %s already in %s", name, e.Vol.Name()).WithCode(control.AlreadyComponent)
		}
		if twin := geomlib.Twin(name, e.Vol.Providers()); twin != nil {
			return ps, control.Errorf(control.Invalid, "%s is %s: %v, a component of %s", ondisk.Printable(name), ondisk.Printable(twin.Name()),
				geomlib.ErrSame, e.Vol.Name()).WithCode(control.AlreadyComponent)
		}
		if twin := geomlib.Twin(name, ps); twin != nil {
			return ps, control.Errorf(control.Invalid, "%s is %s: %v, or the same name", ondisk.Printable(name), ondisk.Printable(twin.Name()), geomlib.ErrSame)
		}
		p, err := e.Host.Open(name, sectorSize)
		if errors.Is(err, fs.ErrNotExist) {
			return ps, control.Errorf(control.Invalid, "Provider not found: %q", name).WithCode(control.ProviderNotFound) // the kernel class's words
		}
		if err != nil {
			return ps, err
		}
		ps = append(ps, p)
	}
	if err = e.refuseLeased(ps); err != nil {
		return ps, err
	}
	err = e.Vol.MayJoin(virstor.AddOptions{Force: force}, ps...)
	if err == nil {
		err = e.Host.MayAdd(ctx, ps)
	}
	if err == nil && !force {
		err = e.refuseHolding(ps)
	}
	return ps, err
}

// refuseLeased refuses components of other volumes that another host may serve, whatever
// may be lost: force says nothing of who writes.
func (e Engine) refuseLeased(ps []geomlib.Provider) error {
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		if err != nil && !errors.Is(err, ondisk.ErrMemberBlock) || m.ID == e.Vol.ID() {
			continue // none, or none of use
		}
		l, err := virstor.LeaseOn(p, m)
		_, reached := p.(geomlib.Guarded)
		name, volume := ondisk.Printable(p.Name()), ondisk.Printable(m.Name)
		switch {
		case err != nil:
			return err
		case l != nil && !l.Released:
			return control.Errorf(control.Busy, "%s is component 0 of %s, and %v: %v: stop it there first, or `gvirstor clear` it, by which %s is lost",
				name, volume, virstor.ErrLeased, l, volume)
		case m.No != 0 && reached:
			return control.Errorf(control.Busy, "%s is component %d of %s, and %v: `gvirstor clear` it first, with component 0, by which %s is lost",
				name, m.No, volume, virstor.ErrLeaseHidden, volume)
		}
	}
	return nil
}

// refuseHolding refuses providers that hold something else than this volume's own labels.
func (e Engine) refuseHolding(ps []geomlib.Provider) error {
	for _, p := range ps {
		all, err := signature.Find(p)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(f signature.Found) bool { return f.Volume == e.Vol.ID() })
		if len(all) > 0 {
			return control.Errorf(control.Invalid, "%s holds %s; with -f it is taken all the same, and that is lost",
				ondisk.Printable(p.Name()), signature.Text(all)).WithCode(control.HoldsData)
		}
	}
	return nil
}

// Component is the name by which the volume knows a provider that is given with or
// without /dev/: name itself if it is no component.
func (e Engine) Component(name string) (known string, is bool) {
	for _, p := range e.Vol.Providers() {
		if geomlib.Name(name).Same(p.Name()) {
			return p.Name(), true
		}
	}
	return name, false
}

// Remove takes components out that hold nothing, one after the other.
func (e Engine) Remove(_ context.Context, _ string, r control.RemoveRequest) error {
	if len(r.Providers) == 0 {
		return control.Errorf(control.Invalid, "remove: no providers")
	}
	for _, name := range r.Providers {
		known, _ := e.Component(name)
		if err := e.Vol.Remove(known); err != nil {
			return Classify(err)
		}
	}
	return nil
}
