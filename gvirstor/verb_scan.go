package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func scanCommand() *command {
	var json bool
	stateDir := state.DefaultFor(os.Geteuid())
	return &command{
		name:     "scan",
		brief:    "Finds volumes on disks and in folders",
		also:     "import pvscan vgscan lvscan discover find",
		operands: "[--json] [--state-dir dir] [folder | prov ...]",
		options: func(f *options) {
			f.flag(&json, "", "json")
			f.text(&stateDir, "state-dir")
		},
		run: func(ctx context.Context, c *call) error { return c.scan(ctx, json, stateDir) },
		about: `Shows which volumes are on this machine's disks and partitions or, when some are
named, on providers and on the files of folders: their components, whether they
are complete, and where this host last served what is missing. Nothing is
written or locked; volumes in service are shown, too.

--json       as one object
--state-dir  folder of the daemon's notes of what this host served`,
		example: "gvirstor scan /vm/disks",
	}
}

// scanned is what scan has found.
type scanned struct {
	Volumes []scannedVolume `json:"volumes"`
	Spares  []scannedSpare  `json:"spares"`
}

type scannedVolume struct {
	Name     string          `json:"name"`
	ID       ondisk.VolumeID `json:"id"`
	Served   bool            `json:"served"` // by the daemon that answers here
	Complete bool            `json:"complete"`
	Reason   string          `json:"reason,omitempty"` // why it is not
	// Components are those that are there, by index.
	Components []scannedComponent         `json:"components"`
	Missing    []control.MissingComponent `json:"missing,omitempty"`
	// Outsiders are providers that name the volume and take no part in it.
	Outsiders []scannedOutsider `json:"outsiders,omitempty"`
}

type scannedComponent struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
}

type scannedOutsider struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

type scannedSpare struct {
	Name   string `json:"name"`
	Volume string `json:"volume"`
}

func (c *call) scan(ctx context.Context, json bool, stateDir string) error {
	names, err := c.placesToScan(ctx)
	if err != nil {
		return err
	}
	found := scanned{Volumes: []scannedVolume{}, Spares: []scannedSpare{}}
	var members []virstor.Member
	defer func() {
		for _, m := range members {
			_ = m.Provider.Close() // it was only read
		}
	}()
	for _, name := range names {
		p, err := c.registry.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		if err != nil {
			continue // no medium, gone, or nothing that could be a component
		}
		m, err := geomlib.ReadMetadata(p)
		if err == nil && m.ProviderSize == uint64(p.MediaSize()) {
			members = append(members, virstor.Member{Provider: p, Metadata: m})
			continue
		}
		if s, err := geomlib.ReadSpare(p); err == nil {
			found.Spares = append(found.Spares, scannedSpare{p.Name(), s.Name})
		}
		_ = p.Close() // likewise
	}
	served := c.servedIDs(ctx)
	for _, a := range virstor.Assemble(members) {
		found.Volumes = append(found.Volumes, c.scannedVolume(a, members, served, stateDir))
	}
	if json {
		return printJSON(c.stdout, found)
	}
	c.printScanned(found)
	return nil
}

// placesToScan are the providers that the operands name, or this machine's.
func (c *call) placesToScan(ctx context.Context) ([]string, error) {
	if len(c.operands) == 0 {
		return c.disks(ctx)
	}
	var names []string
	for _, name := range c.operands {
		entries, err := os.ReadDir(name)
		if fi, e := os.Stat(name); e != nil || !fi.IsDir() {
			if errors.Is(e, fs.ErrNotExist) && geomlib.Name(name).Scheme() == "" && !exists(filepath.Join("/dev", name)) {
				return nil, failf("Can't look at %s: there is no such folder or provider", name)
			}
			names = append(names, name)
			continue
		}
		if err != nil {
			return nil, failf("Can't look at %s: %s", name, errorText(err))
		}
		for _, e := range entries {
			if e.Type().IsRegular() || e.Type()&fs.ModeDevice != 0 {
				names = append(names, filepath.Join(name, e.Name()))
			}
		}
	}
	return names, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// disks are this machine's disks and partitions: those of GEOM, but of several that show
// the same sectors the lowest, or the block devices of Linux.
func (c *call) disks(ctx context.Context) ([]string, error) {
	tree, err := c.kernel.tree(ctx)
	if err == nil {
		return lowestProviders(tree, func(p geomlib.Provider) (string, bool) {
			m, err := geomlib.ReadMetadata(p)
			if err == nil {
				return fmt.Sprint("component ", m.ID, m.No), true
			}
			spare, err := geomlib.ReadSpare(p)
			return fmt.Sprint("spare ", spare), err == nil
		}), nil
	}
	if !errors.Is(err, geomlib.ErrNotSupported) {
		return nil, failf("Can't list the disks: %w", err)
	}
	entries, err := os.ReadDir(blockDevices)
	if err != nil {
		return nil, failf("Can't list the disks of this system: %w; name folders or providers", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join("/dev", e.Name()))
	}
	return names, nil
}

// blockDevices has an entry for each of Linux's.
const blockDevices = "/sys/class/block"

// servedIDs are the ids of the volumes that the daemon serves, none where none answers.
func (c *call) servedIDs(ctx context.Context) map[uint32]bool {
	ids := make(map[uint32]bool)
	client, err := c.reach()
	if err != nil {
		return ids
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return ids
	}
	for _, v := range st.Volumes {
		ids[uint32(v.ID)] = true
	}
	return ids
}

// scannedVolume is what a says, and which of all members are of it.
func (c *call) scannedVolume(a *virstor.Assembly, all []virstor.Member, served map[uint32]bool, stateDir string) scannedVolume {
	v := scannedVolume{Name: a.Name, ID: ondisk.VolumeID(a.ID), Served: served[a.ID], Complete: a.Err == nil, Components: []scannedComponent{}}
	ignored := make(map[string]bool)
	for _, ig := range a.Ignored {
		ignored[ig.Provider.Name()] = true
		v.Outsiders = append(v.Outsiders, scannedOutsider{ig.Provider.Name(), ig.Reason.Error()})
	}
	for _, m := range all {
		if m.Metadata.ID == a.ID && !ignored[m.Provider.Name()] {
			v.Components = append(v.Components, scannedComponent{int(m.Metadata.No), m.Provider.Name()})
		}
	}
	slices.SortFunc(v.Components, func(x, y scannedComponent) int { return x.Index - y.Index })
	if a.Err == nil {
		return v
	}
	v.Reason = a.Err.Error()
	known := c.recall(a.ID, stateDir)
	for _, i := range a.Missing {
		m := control.MissingComponent{Index: i}
		if i < len(known.Providers) {
			m.LastName = known.Providers[i]
		}
		v.Missing = append(v.Missing, m)
	}
	if lacking := (*virstor.IncompleteError)(nil); errors.As(a.Err, &lacking) {
		v.Reason = lacking.Lacks
	}
	v.Reason += known.LastSeen(a.Missing)
	return v
}

func (c *call) printScanned(found scanned) {
	if len(found.Volumes)+len(found.Spares) == 0 {
		fmt.Fprintln(c.stdout, "No volumes were found")
	}
	for _, v := range found.Volumes {
		state := "incomplete: " + v.Reason
		switch {
		case v.Served:
			state = "served"
		case v.Complete:
			state = "complete"
		}
		fmt.Fprintf(c.stdout, "%s (id %08x): %s\n", v.Name, v.ID, state)
		for _, comp := range v.Components {
			fmt.Fprintf(c.stdout, "    component %d  %s\n", comp.Index, ondisk.Printable(comp.Name))
		}
		for _, o := range v.Outsiders {
			fmt.Fprintf(c.stdout, "    no part of it  %s: %s\n", ondisk.Printable(o.Name), o.Reason)
		}
	}
	for _, s := range found.Spares {
		fmt.Fprintf(c.stdout, "a spare of %s: %s\n", ondisk.Printable(s.Volume), ondisk.Printable(s.Name))
	}
}
