package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ondisk"
)

func backupCommand() *command {
	var force bool
	return &command{
		name:     "backup",
		brief:    "Saves the metadata and the map of a volume in a file",
		also:     "vgcfgbackup",
		operands: "[-fv] file name | prov ...",
		verbose:  true,
		options:  func(f *options) { f.flag(&force, "f", "force") },
		run:      func(ctx context.Context, c *call) error { return c.backup(ctx, force) },
		about: `Saves the metadata and the allocation map of a volume in a small file, not its
data: all its components are named, or a volume in service by its name. Restore
brings them back. A damaged volume is refused. Where its snapshots lie is saved,
too; damaged ones are left out.

-f          replace the file if there is one, of which only a backup is replaced`,
		example: "gvirstor backup mydata.backup ada4 ada6",
	}
}

func (c *call) backup(ctx context.Context, force bool) error {
	if len(c.operands) < 2 {
		return c.tooFew()
	}
	path := c.operands[0]
	isBackup := func(path string) bool { return backup.Recognize(path) == nil }
	if err := mayReplace(path, "back up to", "backup", isBackup, force); err != nil {
		return err
	}
	names, err := c.componentNames(ctx, c.operands[1:])
	if err != nil {
		return err
	}
	providers, live, err := c.openToLook(names)
	defer closeProviders(providers)
	if err != nil {
		return err
	}
	b, err := c.takeBackup(ctx, providers, live)
	if err != nil {
		return failf("Can't back up: %w", err)
	}
	if err := b.Save(path); err != nil {
		return failf("Can't %w", err)
	}
	if c.verbose {
		fmt.Fprintf(c.stdout, "%s (id %08x): %d components, %d chunks allocated\n", b.Name(), b.ID(), len(b.Components), b.Allocated())
		c.printMembers(b)
		if snaps := b.Snapshots(); len(snaps) > 0 {
			fmt.Fprintf(c.stdout, "  snapshots: %s\n", strings.Join(snaps, " "))
		}
		if volumes := b.Volumes(); len(volumes) > 0 {
			fmt.Fprintf(c.stdout, "  further volumes: %s\n", strings.Join(volumes, " "))
		}
	}
	return nil
}

// printMembers tells which components a backup is of, and of which moment.
func (c *call) printMembers(b *backup.Backup) {
	for i, comp := range b.Components {
		fmt.Fprintf(c.stdout, "  %d. %s", i, ondisk.Printable(comp.Name))
		if m := comp.Metadata.Member; m.Exists() {
			fmt.Fprintf(c.stdout, ": member %s of generation %d, begun %s", memberID(m), m.Generation, began(m))
		}
		fmt.Fprintln(c.stdout)
	}
}

// stableTries is how often a volume in service is read until its map stands still.
const stableTries = 10

// takeBackup backs up the volume on providers. Of one in service it is read until
// two readings agree: then nothing changed in between.
func (c *call) takeBackup(ctx context.Context, providers []geomlib.Provider, live bool) (b *backup.Backup, err error) {
	var last *virstor.Assembly
	err = c.work("backup", strings.Join(c.operands[1:], " "), false, func(progress func(done, total int64)) (err error) {
		b, err = readBackup(ctx, providers, live, progress, func(now *virstor.Assembly) { last = now })
		return err
	})
	if last == nil {
		return b, err
	}
	for _, ig := range last.Ignored {
		c.warn(fmt.Sprintf("warning: left out: %s", ig.Reason))
	}
	if err == nil && len(b.LeftOut) > 0 {
		c.warn(fmt.Sprintf("warning: left out: what is damaged of %s, or was made of that, which a restore gives up: %s", last.Name, strings.Join(b.LeftOut, " ")))
	}
	return b, err
}

// readBackup tells what the providers make each time that it reads them.
func readBackup(ctx context.Context, providers []geomlib.Provider, live bool, progress func(done, total int64), told func(*virstor.Assembly)) (*backup.Backup, error) {
	now := time.Now()
	var last *backup.Backup
	for range stableTries {
		a, err := assembleOne(providers)
		if err != nil {
			return nil, err
		}
		told(a)
		b, err := backup.FromAssembly(ctx, a, now, progress)
		switch {
		case !live:
			return b, err
		case errors.Is(err, backup.ErrDamaged):
			last = nil // or caught in motion
			continue
		case err != nil:
			return nil, err
		}
		b.Extension = nil // the engine's, while it runs
		if last != nil && reflect.DeepEqual(b, last) {
			return b, nil
		}
		last = b
	}
	return nil, errors.New("the volume is in service and its map does not stand still, or it is damaged; see `gvirstor check`")
}

// assembleOne puts the one volume on providers together.
func assembleOne(providers []geomlib.Provider) (*virstor.Assembly, error) {
	var members []virstor.Member
	for _, p := range providers {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			return nil, fmt.Errorf("read metadata from %s: %s", p.Name(), metadataText(err))
		}
		if n := len(members); n > 0 && members[n-1].Metadata.ID != m.ID {
			return nil, fmt.Errorf("%s and %s are of different volumes, %s and %s", members[n-1].Provider.Name(), p.Name(), ondisk.Printable(members[n-1].Metadata.Name), ondisk.Printable(m.Name))
		}
		if m.Count == 0 {
			return nil, fmt.Errorf("metadata of %s says 0 components; see `gvirstor check`", p.Name())
		}
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	if len(members) == 0 {
		return nil, errors.New("no components")
	}
	return virstor.Assemble(members)[0], nil
}

// mayReplace refuses to write to a file that is there already, whose name somebody may have
// left out before those of components: with force too, unless it is what is to be written.
func mayReplace(path, doing, what string, is func(path string) bool, force bool) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	switch {
	case !is(path):
		return failf("Can't %s %s: it is there already, and is no %s: name another file", doing, path, what)
	case !force:
		return failf("Can't %s %s: it is there already (-f replaces it)", doing, path)
	}
	return nil
}
