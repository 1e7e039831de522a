package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// where says how a volume is found that no daemon serves.
type where struct {
	offline  string // its components, separated by commas
	runDir   string
	stateDir string // of notes of what this host served; empty: none
	forceOld bool   // even if it is older than what this host served
}

func (w *where) declare(o *options) {
	w.runDir = geomlib.DefaultRunDir()
	o.text(&w.offline, "offline")
	o.text(&w.runDir, "run-dir")
	w.stateDir = state.DefaultFor(os.Geteuid())
	o.text(&w.stateDir, "state-dir")
	o.flag(&w.forceOld, "", "force-old")
}

// components are those that --offline names, nil without it.
func (w *where) components() []string {
	if w.offline == "" {
		return nil
	}
	return strings.Split(w.offline, ",")
}

// whereUsage and whereHelp describe the options.
const (
	whereUsage = "[--offline prov,...] [--force-old] [--run-dir dir] [--state-dir dir]"
	whereHelp  = `
--offline p,...
            work here, without the daemon, on a stopped volume of these
            components, which must be all; on FreeBSD they are found without
--force-old the components of a stopped volume may be older than what this host
            served; what was written since is lost
--run-dir   folder of the daemon's locks
--state-dir folder of its notes of what this host served`
)

// backend does the verbs of a volume: the daemon that serves it, or this process for a
// volume that is stopped.
type backend struct {
	control.Verbs
	volume  control.VolumeStatus // of a stopped one, once it is open
	client  *control.Client      // nil: the volume is stopped
	stopped *stopped             // nil: the daemon serves the volume
}

// findBackend finds who does the verbs of a volume. The daemon is asked first unless
// components are named. A stopped volume is not open yet.
func (c *call) findBackend(ctx context.Context, name string, w *where) (*backend, error) {
	if names := w.components(); names != nil {
		name = control.VolumeName(name)
		return c.onStopped(name, names, w), c.refuseKernels(ctx, name)
	}
	client, v, err := c.volumeOf(ctx, name)
	if err == nil {
		return &backend{Verbs: client, volume: v, client: client}, nil
	}
	name = control.VolumeName(name)
	names, treeErr := c.components(ctx, name)
	notRunning := errors.Is(err, control.ErrNotRunning)
	switch {
	case treeErr == nil && names != nil:
		return c.onStopped(name, names, w), nil
	case errors.Is(treeErr, geomlib.ErrNotSupported) && notRunning:
		err = failf("%w; the components of a stopped volume are named by --offline", err)
	case errors.Is(treeErr, geomlib.ErrNotSupported):
	case treeErr != nil:
		err = treeErr
	case notRunning:
		err = failf("%w; and no component of %s was found", err, name)
	}
	return nil, err
}

// onStopped is the backend of a volume that nobody serves.
func (c *call) onStopped(name string, components []string, w *where) *backend {
	s := newStopped(c, name, components, w)
	return &backend{Verbs: s, stopped: s}
}

// purpose is what a stopped volume is opened for.
type purpose int

const (
	toChange   purpose = iota // what is on it
	toRead                    // only
	toIdentify                // who it is: its name, id or fence. The engine has no part in that
)

// changing is what a volume is opened for by a verb that changes what is on it, or only tells
// what it would do.
func changing(dryRun bool) purpose {
	if dryRun {
		return toRead
	}
	return toChange
}

// withPool is withBackend of the volume that a further one is named by. One in service that the
// kernel class made may have a slash in its own name.
func (c *call) withPool(ctx context.Context, name string, w *where, p purpose, do func(*backend) error) error {
	if pool, own := control.SplitName(name); own != "" && !c.isServed(ctx, name, w) {
		name = pool
	}
	return c.withBackend(ctx, name, w, p, do)
}

// isServed reports whether a daemon serves a volume of that name.
func (c *call) isServed(ctx context.Context, name string, w *where) bool {
	if w.offline != "" {
		return false
	}
	client, err := c.reach()
	if err != nil {
		return false
	}
	defer client.Close()
	_, err = client.Volume(ctx, name)
	return err == nil
}

// withBackend finds the backend of a volume and has do use it.
func (c *call) withBackend(ctx context.Context, name string, w *where, p purpose, do func(*backend) error) error {
	b, err := c.findBackend(ctx, name, w)
	if err != nil {
		return err
	}
	return b.use(ctx, p, do)
}

// use opens a stopped volume, calls do, and lets go of the backend.
func (b *backend) use(ctx context.Context, p purpose, do func(*backend) error) (err error) {
	if b.client != nil {
		defer b.client.Close()
		return do(b)
	}
	if b.volume, err = b.stopped.open(ctx, p); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stopped.close()) }()
	return do(b)
}

// componentName is the name under which v has the component that operand means.
func componentName(v *control.VolumeStatus, operand string) (string, error) {
	for _, c := range v.Components {
		if geomlib.Name(operand).Same(c.Name) {
			return c.Name, nil
		}
	}
	return forDaemon(operand)
}

// components are the providers labelled as components of the stopped volume of
// that name.
func (c *call) components(ctx context.Context, name string) ([]string, error) {
	tree, err := c.kernel.tree(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the components of %s: %w", name, err)
	}
	if err := refuseRun(tree, name); err != nil {
		return nil, err
	}
	return findComponents(tree, name), nil
}

// refuseKernels refuses a volume that FreeBSD's kernel class runs.
func (c *call) refuseKernels(ctx context.Context, name string) error {
	tree, err := c.kernel.tree(ctx)
	switch {
	case errors.Is(err, geomlib.ErrNotSupported):
		return nil
	case err != nil:
		return failf("Can't tell whether the kernel class runs %s: %w", name, err)
	}
	return refuseRun(tree, name)
}

func refuseRun(tree *geomlib.Tree, name string) error {
	if tree.Geom("VIRSTOR", name) == nil {
		return nil
	}
	return failf("Can't change %s: the kernel class runs it; `/sbin/gvirstor stop %s` first", name, name)
}

// findComponents are the providers that are labelled as components of the volume
// of that name. Two disks that claim to be one component are both among them: that is
// not ours to decide.
func findComponents(tree *geomlib.Tree, name string) []string {
	return lowestProviders(tree, func(p geomlib.Provider) (string, bool) {
		m, err := geomlib.ReadMetadata(p)
		return fmt.Sprint(m.ID, m.No), err == nil && ondisk.Printable(m.Name) == name && m.ProviderSize == uint64(p.MediaSize())
	})
}

// lowestProviders are the providers that key takes. Of those with the same key that show
// the same sectors it is the lowest, such as the disk of a diskid.
func lowestProviders(tree *geomlib.Tree, key func(geomlib.Provider) (string, bool)) []string {
	claims := make(map[string][]string)
	for _, class := range tree.Classes {
		for _, g := range class.Geoms {
			for _, p := range g.Providers {
				if p.Wither || class.Name == "VIRSTOR" || class.Name == "GATE" {
					continue
				}
				// A file here may have the name of a disk.
				o, err := geomlib.Files{}.Open("/dev/"+p.Name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
				if err != nil {
					continue // no medium, or gone
				}
				if k, ok := key(o); ok {
					claims[k] = append(claims[k], p.Name)
				}
				_ = o.Close() // only read from
			}
		}
	}
	var names []string
	for _, same := range claims {
		for _, p := range same {
			lower := func(o string) bool { return o != p && tree.OnTopOf(p, o) }
			if !slices.ContainsFunc(same, lower) {
				names = append(names, "/dev/"+p)
			}
		}
	}
	slices.Sort(names)
	return names
}

// componentNames are the components of the volume in service that the only
// operand names, or the operands.
func (c *call) componentNames(ctx context.Context, operands []string) ([]string, error) {
	if len(operands) != 1 {
		return operands, nil
	}
	name := operands[0]
	client, err := c.reach()
	notRunning := errors.Is(err, control.ErrNotRunning)
	if err != nil && !notRunning && c.socketNamed {
		return nil, failf("Can't reach the daemon: %w", err)
	}
	if err != nil { // what operand is a provider needs no daemon
		return c.stoppedNames(ctx, name, "ggated-virstor, which would know a volume of that name, is not running")
	}
	defer client.Close()
	v, err := client.Volume(ctx, name)
	if err != nil && control.KindOf(err) == control.NotFound {
		return c.stoppedNames(ctx, name, "ggated-virstor serves no volume of that name")
	}
	if err != nil {
		return nil, failf("Can't ask the daemon for %s: %w", name, err)
	}
	var names []string
	for _, comp := range v.Components {
		names = append(names, comp.Name)
	}
	return names, nil
}

// stoppedNames are what name means when no daemon serves a volume of that name, and
// why: the provider, else the components of the stopped volume where GEOM tells.
func (c *call) stoppedNames(ctx context.Context, name, why string) ([]string, error) {
	if geomlib.Name(name).Scheme() != "" { // no volume is called that
		return []string{name}, nil
	}
	for _, path := range []string{name, filepath.Join("/dev", name)} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return []string{name}, nil // whatever is wrong, opening it tells
		}
	}
	tree, err := c.kernel.tree(ctx)
	if err == nil {
		if names := findComponents(tree, name); len(names) > 0 {
			return names, nil
		}
	}
	return nil, failf("Can't open %s: there is no such provider, and %s; of a stopped volume name all components", name, why)
}
