package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// where says how a volume is found that no daemon serves.
type where struct {
	components []string
	runDir     string
}

func newWhere() where { return where{runDir: geomlib.DefaultRunDir()} }

func (w *where) declare(o *options) {
	o.list(&w.components, "c", "component")
	o.text(&w.runDir, "run-dir")
}

// whereUsage and whereHelp describe the options.
const (
	whereUsage = "[-c comp] [--run-dir dir]"
	whereHelp  = `
-c comp     a component of a stopped volume, which is changed in this process;
            once for each. On FreeBSD they are found without it
--run-dir   folder of the daemon's locks`
)

// changer changes volumes: the daemon that serves them, or this process.
type changer interface {
	Add(ctx context.Context, volume string, r control.AddRequest) error
	Remove(ctx context.Context, volume string, r control.RemoveRequest) error
	StartJob(ctx context.Context, volume string, r control.JobRequest) (control.JobStatus, error)
	Job(ctx context.Context, id string) (control.JobStatus, error)
	// component is the name under which a component is known that operand
	// means, or a name for a provider that is none.
	component(operand string) (string, error)
	// mayLeave reports whether a job goes on when this process ends.
	mayLeave() bool
	// interrupt is what becomes of a job that nobody waits for any more.
	interrupt(j control.JobStatus) error
	close() error
}

// served is a volume that the daemon serves.
type served struct {
	*control.Client
	volume control.VolumeStatus
}

func (s *served) component(operand string) (string, error) {
	return componentName(&s.volume, operand)
}

func (s *served) mayLeave() bool { return true }

func (s *served) interrupt(j control.JobStatus) error {
	return failf("%s of %s goes on in the daemon", j.Kind, j.Volume)
}

func (s *served) close() error {
	s.Close()
	return nil
}

// changer finds a volume that is to be changed. The daemon is asked first, unless
// components are named.
func (c *call) changer(ctx context.Context, name string, w where) (changer, error) {
	if len(w.components) > 0 {
		return c.openStopped(ctx, name, w.components, w.runDir)
	}
	client, v, err := c.volumeOf(ctx, name)
	if err == nil {
		return &served{client, v}, nil
	}
	tree, treeErr := c.kernel.tree(ctx)
	if errors.Is(treeErr, geomlib.ErrNotSupported) {
		if !errors.Is(err, control.ErrNotRunning) {
			return nil, err
		}
		return nil, failf("%w; the components of a stopped volume are named by -c", err)
	}
	if treeErr != nil {
		return nil, failf("%w; and its components can't be looked for: %w", err, treeErr)
	}
	if tree.Geom("VIRSTOR", name) != nil {
		return nil, failf("Can't change %s: the kernel class runs it; `/sbin/gvirstor stop %s` first", name, name)
	}
	components := findComponents(tree, name)
	switch {
	case len(components) > 0:
		return c.openStopped(ctx, name, components, w.runDir)
	case errors.Is(err, control.ErrNotRunning):
		return nil, failf("%w; and no component of %s was found", err, name)
	}
	return nil, err
}

// findComponents are the providers that are labelled as components of the volume
// of that name. Of those that show the same sectors the one nearest to the medium
// is taken.
func findComponents(tree *geomlib.Tree, name string) []string {
	type key struct {
		id uint32
		no uint16
	}
	best := make(map[key]*geomlib.TreeProvider)
	for _, class := range tree.Classes {
		for _, g := range class.Geoms {
			for _, p := range g.Providers {
				if p.Wither || class.Name == "VIRSTOR" || class.Name == "GATE" {
					continue
				}
				o, err := geomlib.Open(p.Name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
				if err != nil {
					continue // no medium, or gone
				}
				m, err := geomlib.ReadMetadata(o)
				_ = o.Close() // only read from
				if err != nil || m.Name != name || m.ProviderSize != uint64(p.MediaSize) {
					continue
				}
				k := key{m.ID, m.No}
				if b := best[k]; b == nil || g.Rank < b.Geom.Rank {
					best[k] = p
				}
			}
		}
	}
	var names []string
	for _, p := range best {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// stopped is a volume that no daemon serves, open in this process.
type stopped struct {
	c    *call
	vol  *virstor.Volume
	lock *geomlib.VolumeLock
}

// openStopped opens the volume of that name on its components.
func (c *call) openStopped(ctx context.Context, name string, components []string, runDir string) (*stopped, error) {
	components, err := allForDaemon(components) // so that one provider has one name
	if err != nil {
		return nil, err
	}
	providers, err := openToChange(components)
	if err != nil {
		closeProviders(providers)
		return nil, err
	}
	s, err := c.openVolume(name, providers, runDir)
	if err != nil {
		closeProviders(providers)
		return nil, err
	}
	return s, nil
}

// openVolume opens the volume of that name, and then owns providers.
func (c *call) openVolume(name string, providers []geomlib.Provider, runDir string) (*stopped, error) {
	a, err := assembleOne(providers)
	if err != nil {
		return nil, failf("Can't open %s: %w", name, err)
	}
	switch {
	case a.Name != name:
		return nil, failf("Can't open %s: %s is a component of %s", name, providers[0].Name(), a.Name)
	case a.Err != nil:
		return nil, failf("Can't open %s: %w", name, a.Err)
	case len(a.Ignored) > 0:
		return nil, failf("Can't open %s: %s takes no part in it: %w", name, a.Ignored[0].Provider.Name(), a.Ignored[0].Reason)
	}
	lock, err := geomlib.LockVolume(runDir, a.ID)
	if err != nil {
		return nil, failf("Can't open %s: %w", name, err)
	}
	vol, err := virstor.Open(a, virstor.Config{Log: c.warnings()})
	if err != nil {
		return nil, failf("Can't open %s: %w", name, errors.Join(err, lock.Close()))
	}
	return &stopped{c, vol, lock}, nil
}

// close hands the volume back where that is possible.
func (s *stopped) close() error {
	err := s.vol.Stop()
	var kept *virstor.NotHandedBackError
	if errors.As(err, &kept) {
		s.c.warn(fmt.Sprintf("warning: %s stays fenced from the kernel class: %s", s.vol.Name(), fencedBecause(kept.Reasons)))
		err = nil
	}
	return errors.Join(err, s.lock.Close())
}

func (s *stopped) component(operand string) (string, error) {
	want := strings.TrimPrefix(operand, "/dev/")
	for _, p := range s.vol.Providers() {
		if strings.TrimPrefix(p.Name(), "/dev/") == want {
			return p.Name(), nil
		}
	}
	return forDaemon(operand)
}

// Add adds providers, all or none.
func (s *stopped) Add(_ context.Context, _ string, r control.AddRequest) (err error) {
	var ps []geomlib.Provider
	defer func() {
		if err != nil {
			closeProviders(ps)
		}
	}()
	for _, name := range r.Providers {
		p, err := s.open(name)
		if err != nil {
			return err
		}
		ps = append(ps, p)
	}
	return s.vol.Add(ps, virstor.AddOptions{Hardcode: r.Hardcode})
}

// open opens a provider that is to become a component.
func (s *stopped) open(name string) (geomlib.Provider, error) {
	for _, old := range s.vol.Providers() {
		if strings.TrimPrefix(old.Name(), "/dev/") == strings.TrimPrefix(name, "/dev/") {
			return nil, failf("Component %s already in %s", name, s.vol.Name())
		}
	}
	p, err := geomlib.Open(name, geomlib.OpenOptions{SectorSize: s.vol.SectorSize()})
	if err != nil {
		return nil, err
	}
	if err := virstor.Unlabelled(p, s.vol.ID()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Remove removes components that hold nothing.
func (s *stopped) Remove(_ context.Context, _ string, r control.RemoveRequest) error {
	for _, name := range r.Providers {
		if err := s.vol.Remove(name); err != nil {
			return err
		}
	}
	return nil
}
