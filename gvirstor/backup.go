package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func backupCommand() *command {
	var force bool
	return &command{
		name:     "backup",
		operands: "[-fv] file name | prov ...",
		verbose:  true,
		options:  func(f *options) { f.flag(&force, "f", "force") },
		run:      func(ctx context.Context, c *call) error { return c.backup(ctx, force) },
		about: `Saves the metadata and the allocation map of a volume in a small file, not its
data: all its components are named, or a volume in service by its name. Restore
brings them back. A damaged volume is refused.

-f          replace the file if there is one`,
		example: "gvirstor backup mydata.backup ada4 ada6",
	}
}

func (c *call) backup(ctx context.Context, force bool) error {
	if len(c.operands) < 2 {
		return c.tooFew()
	}
	path := c.operands[0]
	if _, err := os.Lstat(path); !force && !errors.Is(err, fs.ErrNotExist) {
		return failf("Can't back up to %s: it is there already (-f replaces it)", path)
	}
	names, err := c.componentNames(ctx, c.operands[1:])
	if err != nil {
		return err
	}
	providers, live, err := openToLook(names)
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
	var ignored []virstor.Ignored
	err = c.work("backup", strings.Join(c.operands[1:], " "), false, func(progress func(done, total int64)) (err error) {
		b, err = readBackup(ctx, providers, live, progress, func(now []virstor.Ignored) { ignored = now })
		return err
	})
	for _, ig := range ignored {
		c.warn(fmt.Sprintf("warning: left out: %s", ig.Reason))
	}
	return b, err
}

// readBackup tells who of the providers is ignored each time that it reads them.
func readBackup(ctx context.Context, providers []geomlib.Provider, live bool, progress func(done, total int64), told func([]virstor.Ignored)) (*backup.Backup, error) {
	now := time.Now()
	var last *backup.Backup
	for range stableTries {
		a, err := assembleOne(providers)
		if err != nil {
			return nil, err
		}
		told(a.Ignored)
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

// componentNames are the components of the volume in service that the only
// operand names, or the operands.
func (c *call) componentNames(ctx context.Context, operands []string) ([]string, error) {
	if len(operands) != 1 {
		return operands, nil
	}
	name := operands[0]
	client, err := c.dial(c.socket)
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

func restoreCommand() *command {
	o := restoreOptions{runDir: geomlib.DefaultRunDir(), stateDir: state.DefaultFor(os.Geteuid())}
	return &command{
		name:     "restore",
		operands: "[-fnv] [--in-order] [--run-dir dir] [--state-dir dir] file prov ...",
		verbose:  true,
		options: func(f *options) {
			f.flag(&o.force, "f", "force")
			f.flag(&o.dryRun, "n", "dry-run")
			f.flag(&o.inOrder, "", "in-order")
			f.text(&o.runDir, "run-dir")
			f.text(&o.stateDir, "state-dir")
		},
		run: func(ctx context.Context, c *call) error { return c.restore(ctx, o) },
		about: `Writes what backup saved to all components of a stopped volume, which are found
by their metadata, names and sizes. A backup that does not fit is refused, and
so is one that is older than the volume: what was written since to chunks that
it does not have would be lost.

-f            even if the volume has changed since
-n            only tell what would be done
--in-order    the providers are the components in their order
--run-dir     folder of the daemon's locks
--state-dir   folder of its notes of what this host served`,
		example: "gvirstor restore -n mydata.backup ada4 ada6",
	}
}

// restoreOptions are those of restore.
type restoreOptions struct {
	force, dryRun, inOrder bool
	runDir, stateDir       string
}

func (c *call) restore(ctx context.Context, o restoreOptions) error {
	if len(c.operands) < 2 {
		return c.tooFew()
	}
	if err := backup.Recognize(c.operands[0]); err != nil {
		return failf("Can't %w", err)
	}
	providers, err := c.openToChange(ctx, c.operands[1:])
	defer closeProviders(providers)
	if err != nil {
		return err
	}
	b, err := backup.LoadFor(c.operands[0], providers, o.inOrder)
	if err != nil {
		return failf("Can't %w", err)
	}
	var res *backup.Restored
	err = c.work("restore", b.Name(), false, func(progress func(done, total int64)) (err error) {
		res, err = backup.Restore(ctx, providers, b, backup.RestoreOptions{
			Force: o.force, DryRun: o.dryRun, InOrder: o.inOrder, RunDir: o.runDir, Log: c.warnings(), Progress: progress,
			Above: c.recall(b.ID(), o.stateDir).Generation,
		})
		return err
	})
	if errors.Is(err, backup.ErrNewer) {
		return failf("Can't %w (-f)", err)
	}
	if err != nil {
		return failf("Can't %w", err)
	}
	if !o.dryRun {
		if err := c.raiseFrom(o.stateDir, b.ID(), restoredOn(providers, res)); err != nil {
			return err
		}
	}
	if o.dryRun || c.verbose {
		c.printRestored(b, res, o.dryRun)
	}
	if len(res.StaysFenced) > 0 {
		c.warn(fmt.Sprintf("warning: %s stays fenced from the kernel class: %s", b.Name(), strings.Join(res.StaysFenced, "; ")))
	}
	return nil
}

// restoredOn are the providers that a backup was restored to, by component.
func restoredOn(providers []geomlib.Provider, res *backup.Restored) []virstor.Member {
	var members []virstor.Member
	for _, name := range res.Providers {
		for _, p := range providers {
			if p.Name() == name {
				members = append(members, virstor.Member{Provider: p})
			}
		}
	}
	return members
}

func (c *call) printRestored(b *backup.Backup, res *backup.Restored, dryRun bool) {
	word, verb := "Restored", "is"
	if dryRun {
		word, verb = "Would restore", "would be"
	}
	fmt.Fprintf(c.stdout, "%s %s (id %08x) as of %s: %d chunks allocated, on %s\n", word, b.Name(), b.ID(),
		b.Time.Local().Format(time.DateTime), b.Allocated(), strings.Join(res.Providers, " "))
	if g := b.Generation(); g > 0 {
		fmt.Fprintf(c.stdout, "The backup is of generation %d, and the volume %s of a later one than all that its components and this host had\n", g,
			verb)
	}
	if dryRun {
		c.printMembers(b)
	}
	if res.Lost+res.Moved > 0 {
		fmt.Fprintf(c.stdout, "Given up: %d chunks allocated since, %d that lay elsewhere\n", res.Lost, res.Moved)
	}
}
