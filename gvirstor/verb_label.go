package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/signature"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// labelOptions are those of label. Sizes are bytes.
type labelOptions struct {
	hardcode               bool
	force                  bool // whatever the providers hold
	dryRun                 bool
	smallChunks            bool // of a volume that the kernel class never serves
	chunkSize, virtualSize int64
	sectorSize             int64 // of regular files; 0: as geomlib.Open finds
	others                 otherHosts
}

func labelCommand() *command {
	o := labelOptions{chunkSize: ondisk.DefaultChunkSize, virtualSize: ondisk.DefaultVirtualSize}
	return &command{
		name:     "label",
		brief:    "Makes a volume of providers",
		also:     "init new pvcreate vgcreate",
		operands: "[-fhnv] [-m chunk_size] [--small-chunks] [-s vir_size] [--sector-size size] " + otherHostsUsage + " name provider0 [provider1 ...]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&o.force, "f", "force")
			f.flag(&o.hardcode, "h", "hardcode")
			f.flag(&o.dryRun, "n", "dry-run")
			f.number(&o.chunkSize, "m", "chunk-size")
			f.flag(&o.smallChunks, "", "small-chunks")
			f.number(&o.virtualSize, "s", "virtual-size")
			f.number(&o.sectorSize, "", "sector-size")
			o.others.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.label(ctx, &o) },
		about: `Makes a volume of providers: disks, partitions or regular files. Those that hold
something, such as a file system, a partition table or another volume's label,
are named and refused. provider0 holds the allocation map. A daemon that runs is
told and serves the new volume at once.

-f               label them whatever they hold: that is lost
-h               write the providers' names into the metadata: elsewhere they
                 are no components
-n               only tell what would be done, and what would be lost
-m chunk_size    the unit of allocation, 4M if not given
--small-chunks   it may be a multiple of 64K, for cheap snapshots; one that is
                 none of 128K is never handed to the kernel class
-s vir_size      the size of the virtual disk, 2T if not given
--sector-size    sector size of components that are regular files, else 512
--takeover       no other host serves a volume that a provider is of, as you
                 know for certain: its lease is not looked at
--run-dir dir    folder of the daemon's locks
-v               tell what is done`,
		example: "gvirstor label -v -s 2T mydata ada4 ada6",
	}
}

func (c *call) label(ctx context.Context, o *labelOptions) (err error) {
	if len(c.operands) < 2 {
		return failf("Too few arguments (%d): expecting: name provider0 [provider1 ...]", len(c.operands))
	}
	if o.virtualSize == 0 || o.chunkSize == 0 {
		return failf("Virtual size and chunk size must be non-zero")
	}
	if o.sectorSize != 0 && (o.sectorSize < 512 || o.sectorSize > 64<<10 || o.sectorSize&(o.sectorSize-1) != 0) {
		return failf("Sector size %d is not a power of two from 512 to 65536", o.sectorSize)
	}
	name, names := c.operands[0], c.operands[1:]
	client, err := c.daemonForLabel(ctx, name)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
	}
	providers, err := c.openForLabel(ctx, names, geomlib.OpenOptions{SectorSize: int(o.sectorSize), ReadOnly: o.dryRun})
	defer func() {
		for _, p := range providers {
			err = errors.Join(err, p.Close())
		}
	}()
	if err != nil {
		return err
	}
	if err := refuseServed(ctx, client, providers); err != nil {
		return err
	}
	layout, err := planLabel(name, providers, o)
	if err != nil {
		return err
	}
	holds, err := findHeld(names, providers, o.force && !o.dryRun)
	if err == nil && holds != "" && !o.force {
		err = failf("Can't label: %w; with -f all is labelled all the same, and that is lost", errors.New(holds))
	}
	if err != nil {
		return err
	}
	if err := c.endLeased(ctx, providers, o); err != nil {
		return err
	}
	if o.dryRun {
		c.tellLabel(names, layout, holds)
		return nil
	}
	if err := c.writeLabel(ctx, names, providers, layout); err != nil {
		return err
	}
	// The daemon takes the locks from here.
	for len(providers) > 0 {
		p := providers[len(providers)-1]
		providers = providers[:len(providers)-1]
		if err := p.Close(); err != nil {
			return failf("Can't close %s: %w", p.Name(), err)
		}
	}
	return c.serveLabelled(ctx, client, name, names, int(o.sectorSize))
}

// endLeased ends volumes on providers that other hosts can reach: from then on none finds
// them. What another host has is refused.
func (c *call) endLeased(ctx context.Context, providers []geomlib.Provider, o *labelOptions) (err error) {
	held, err := c.keepOthersOff(ctx, providers, o.others, !o.dryRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	for _, a := range byVolume(providers) {
		if held.taken[a.ID] == nil {
			continue
		}
		for _, m := range a.Members {
			if err := geomlib.ClearMetadata(m.Provider); err != nil {
				return failf("Can't clear metadata on %s: %w", m.Provider.Name(), err)
			}
		}
	}
	return nil
}

// daemonForLabel reaches the daemon that is to serve the new volume: nil when
// none runs, which is no error unless the user named its socket.
func (c *call) daemonForLabel(ctx context.Context, name string) (*control.Client, error) {
	client, err := c.reach()
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return nil, nil
	case err != nil && c.socketNamed:
		return nil, failf("Can't reach the daemon: %w", err)
	case err != nil:
		c.warn(fmt.Sprintf("warning: %v; it serves the volume after its next start", err))
		return nil, nil
	}
	v, err := client.Volume(ctx, name)
	if control.KindOf(err) == control.NotFound {
		return client, nil
	}
	client.Close()
	if err != nil {
		return nil, failf("Can't ask the daemon for volumes called %s: %w", name, err)
	}
	return nil, failf("A volume named %s is served already; stop it or choose another name", v.Name)
}

// openForLabel opens and locks the providers. On error it returns those that
// are open.
func (c *call) openForLabel(ctx context.Context, names []string, o geomlib.OpenOptions) ([]geomlib.Provider, error) {
	var providers []geomlib.Provider
	missing := false
	for _, name := range names {
		if err := notTwice(name, providers); err != nil {
			return providers, failf("Can't label %s: it is in use, or named twice: %w", name, err)
		}
		p, err := c.open(ctx, name, o)
		switch {
		case errors.Is(err, geomlib.ErrLocked):
			return providers, failf("Can't label %s: it is in use, or named twice: %w", name, err)
		case err != nil:
			fmt.Fprintf(c.stderr, "%s for %s\n", providerText(name, err), ondisk.Printable(name))
			missing = true
			continue
		}
		providers = append(providers, p)
		if want := providers[0].SectorSize(); p.SectorSize() != want {
			return providers, failf("Devices need to have same sector size (%d on %s needs to be %d).", p.SectorSize(), name, want)
		}
	}
	if missing {
		return providers, failf("Device not specified")
	}
	return providers, nil
}

// findHeld tells what providers hold that would be lost, empty if nothing does. blind:
// nobody wants to know, so that a disk that cannot be read is no error.
func findHeld(names []string, providers []geomlib.Provider, blind bool) (string, error) {
	var holds []string
	for i, p := range providers {
		if blind {
			break
		}
		all, err := signature.Find(p)
		if err != nil {
			return "", failf("Can't %w; -f labels it unseen", err)
		}
		if len(all) > 0 {
			holds = append(holds, ondisk.Printable(names[i])+" holds "+signature.Text(all))
		}
	}
	return strings.Join(holds, "; "), nil
}

// tellLabel tells what labelling would do.
func (c *call) tellLabel(names []string, l *ondisk.Layout, holds string) {
	for _, line := range l.Notices {
		fmt.Fprintln(c.stderr, line)
	}
	fmt.Fprintln(c.stdout, labelHeading(l))
	for i, name := range names {
		fmt.Fprintf(c.stdout, "Would be labelled: %s (%d chunks)\n", name, l.Metadata[i].ChunkCount)
	}
	if holds != "" {
		fmt.Fprintf(c.stdout, "Would be lost: %s.\n", holds)
	}
}

// refuseServed refuses providers whose metadata names a volume in service,
// be it that the daemon does not have them open itself.
func refuseServed(ctx context.Context, client *control.Client, providers []geomlib.Provider) error {
	if client == nil {
		return nil
	}
	st, err := client.Status(ctx)
	if err != nil {
		return failf("Can't get the status: %w", err)
	}
	for _, p := range providers {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			continue // none, or none of use
		}
		for _, v := range st.Volumes {
			if uint32(v.ID) == m.ID {
				return failf("Can't label %s: it is labelled as component %d of %s, which is served, and holds data of it; `gvirstor remove -e %s %s` moves that and frees it",
					p.Name(), m.No, v.Name, v.Name, p.Name())
			}
		}
	}
	return nil
}

func planLabel(name string, providers []geomlib.Provider, o *labelOptions) (*ondisk.Layout, error) {
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, failf("Can't make an id for the volume: %w", err)
	}
	r := ondisk.LabelRequest{
		Name: name, VirtualSize: o.virtualSize, ChunkSize: o.chunkSize, Hardcode: o.hardcode,
		ID: binary.LittleEndian.Uint32(id[:]), SmallChunks: o.smallChunks,
	}
	for _, p := range providers {
		r.Providers = append(r.Providers, ondisk.LabelProvider{Name: p.Name(), Size: p.MediaSize(), SectorSize: p.SectorSize()})
	}
	l, err := ondisk.Plan(r)
	var small *ondisk.SizeError
	if errors.As(err, &small) { // as the original says it
		return nil, failf("Device %s is too small (%s)", small.Provider, small.Why)
	}
	return l, err
}

// writeLabel labels, telling what FreeBSD's tool tells.
func (c *call) writeLabel(ctx context.Context, names []string, providers []geomlib.Provider, layout *ondisk.Layout) error {
	for _, line := range layout.Notices {
		fmt.Fprintln(c.stderr, line)
	}
	var o virstor.LabelOptions
	if c.verbose {
		fmt.Fprintln(c.stdout, labelHeading(layout))
		o.Progress = func(step virstor.LabelStep, i int) {
			fmt.Fprint(c.stdout, labelProgress(layout, names, step, i))
		}
	}
	err := c.work("label", layout.Metadata[0].Name, c.verbose, func(progress func(done, total int64)) error {
		o.Cleared = progress
		return virstor.Label(ctx, providers, layout, o)
	})
	if err != nil {
		if c.verbose {
			fmt.Fprintln(c.stdout)
		}
		if errors.Is(err, context.Canceled) {
			return failf("Can't label %s: %s; give it again, with -f", layout.Metadata[0].Name, errorText(err))
		}
		return failf("Can't %w", err)
	}
	return nil
}

func labelHeading(l *ondisk.Layout) string {
	m := l.Metadata[0]
	each := fmt.Sprintf("%d MB", m.ChunkSize>>20)
	if m.SmallChunks() {
		each = fmt.Sprintf("%d kB", m.ChunkSize>>10)
	}
	return fmt.Sprintf("Total virtual chunks: %d (%s each), %d MB total virtual size.", m.Entries(), each, m.VirtualSize>>20)
}

// labelProgress is what is printed before a step. Without the heading, and
// with nothing behind it, it is what label -v prints.
func labelProgress(l *ondisk.Layout, names []string, step virstor.LabelStep, i int) string {
	var b strings.Builder
	switch step {
	case virstor.LabelClear:
		if i == 0 {
			b.WriteString("Clearing metadata on")
		}
		b.WriteString(" " + names[i])
	case virstor.LabelMap:
		fmt.Fprintf(&b, ".\nWriting allocation table to %s... (%d MB, %d chunks) ", names[i], l.MapBytes>>20, l.MapChunks)
	case virstor.LabelStore:
		if i == 0 {
			b.WriteString("\nStoring metadata on ")
		}
		fmt.Fprintf(&b, "%s (%d chunks) ", names[i], l.FittedChunks[i])
		if i == 0 {
			fmt.Fprintf(&b, "(%d reserved) ", l.Metadata[i].ChunkReserved)
		}
	}
	return b.String()
}

// serveLabelled has the daemon, if there is one, serve the new volume.
func (c *call) serveLabelled(ctx context.Context, client *control.Client, name string, names []string, sectorSize int) error {
	if client == nil {
		return nil
	}
	paths, err := allForDaemon(names)
	if err != nil {
		return err
	}
	r, err := client.Serve(ctx, control.ServeRequest{Providers: paths, SectorSize: sectorSize})
	if err != nil {
		return fmt.Errorf("%s is labelled, but the daemon can't serve it: %w", name, err)
	}
	for i := range r.Volumes {
		v := &r.Volumes[i]
		if v.Name != name {
			continue
		}
		if c.verbose {
			fmt.Fprintln(c.stdout) // ends the line of what was stored
		}
		fmt.Fprintf(c.stdout, "%s is served as %s\n", name, strings.Join(whereabouts(v), ", "))
		return nil
	}
	c.warnProblems(r.Problems)
	return fmt.Errorf("%s is labelled, but the daemon does not serve it", name)
}

// whereabouts are the ways to a volume.
func whereabouts(v *control.VolumeStatus) []string {
	var all []string
	for _, p := range v.Published {
		if p.URI != "" {
			all = append(all, p.URI)
		} else {
			all = append(all, p.Name)
		}
	}
	if all == nil {
		all = v.Nodes()
	}
	return all
}
