package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// where says how a volume is found that no daemon serves.
type where struct {
	offline string // its components, separated by commas
	runDir  string
}

func (w *where) declare(o *options) {
	w.runDir = geomlib.DefaultRunDir()
	o.text(&w.offline, "offline")
	o.text(&w.runDir, "run-dir")
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
	whereUsage = "[--offline prov,...] [--run-dir dir]"
	whereHelp  = `
--offline p,...
            work here, without the daemon, on a stopped volume of these
            components, which must be all; on FreeBSD they are found without
--run-dir   folder of the daemon's locks`
)

// find reaches the daemon that serves a volume, or tells of what components it is
// if it is stopped. The daemon is asked first unless components are named.
func (c *call) find(ctx context.Context, name string, w *where) (client *control.Client, v control.VolumeStatus, components []string, err error) {
	if components = w.components(); components != nil {
		return nil, v, components, nil
	}
	if client, v, err = c.volumeOf(ctx, name); err == nil {
		return client, v, nil, nil
	}
	components, treeErr := c.components(ctx, name)
	notRunning := errors.Is(err, control.ErrNotRunning)
	switch {
	case treeErr == nil && components != nil:
		return nil, v, components, nil
	case errors.Is(treeErr, geomlib.ErrNotSupported) && notRunning:
		err = failf("%w; the components of a stopped volume are named by --offline", err)
	case errors.Is(treeErr, geomlib.ErrNotSupported):
	case treeErr != nil:
		err = treeErr
	case notRunning:
		err = failf("%w; and no component of %s was found", err, name)
	}
	return nil, v, nil, err
}

// components are the providers labelled as components of the stopped volume of
// that name.
func (c *call) components(ctx context.Context, name string) ([]string, error) {
	tree, err := c.kernel.tree(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the components of %s: %w", name, err)
	}
	if tree.Geom("VIRSTOR", name) != nil {
		return nil, failf("Can't change %s: the kernel class runs it; `/sbin/gvirstor stop %s` first", name, name)
	}
	return findComponents(tree, name), nil
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
