package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
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
// of that name. Of those that show the same sectors it is the lowest, such as the
// disk of a diskid. Two disks that claim to be one component are both among
// them: that is not ours to decide.
func findComponents(tree *geomlib.Tree, name string) []string {
	type key struct {
		id uint32
		no uint16
	}
	claims := make(map[key][]string)
	for _, class := range tree.Classes {
		for _, g := range class.Geoms {
			for _, p := range g.Providers {
				if p.Wither || class.Name == "VIRSTOR" || class.Name == "GATE" {
					continue
				}
				// A file here may have the name of a disk.
				o, err := geomlib.Open("/dev/"+p.Name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
				if err != nil {
					continue // no medium, or gone
				}
				m, err := geomlib.ReadMetadata(o)
				_ = o.Close() // only read from
				if err != nil || ondisk.Printable(m.Name) != name || m.ProviderSize != uint64(p.MediaSize) {
					continue
				}
				k := key{m.ID, m.No}
				claims[k] = append(claims[k], p.Name)
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
