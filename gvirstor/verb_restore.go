package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
)

func restoreCommand() *command {
	o := restoreOptions{stateDir: state.DefaultFor(os.Geteuid())}
	return &command{
		name:     "restore",
		brief:    "Writes what backup saved",
		destroys: true,
		operands: "[-fnv] [--in-order] " + otherHostsUsage + " [--state-dir dir] file prov ...",
		verbose:  true,
		options: func(f *options) {
			f.flag(&o.force, "f", "force")
			f.flag(&o.dryRun, "n", "dry-run")
			f.flag(&o.inOrder, "", "in-order")
			o.others.declare(f)
			f.text(&o.stateDir, "state-dir")
		},
		run: func(ctx context.Context, c *call) error { return c.restore(ctx, o) },
		about: `Writes what backup saved to all components of a stopped volume, which are found
by their metadata, names and sizes. A backup that does not fit is refused, and
so is one that is older than the volume: what was written since to chunks that
it does not have would be lost, and so would snapshots that were taken since.
Refused, too, is a provider that only its size speaks for, and that holds
something else.

-f          even so
-n          only tell what would be done
--in-order  the providers are the components in their order` + otherHostsHelp + `
--state-dir folder of its notes of what this host served`,
		example: "gvirstor restore -n mydata.backup ada4 ada6",
	}
}

// restoreOptions are those of restore.
type restoreOptions struct {
	force, dryRun, inOrder bool
	others                 otherHosts
	stateDir               string
}

func (c *call) restore(ctx context.Context, o restoreOptions) (err error) {
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
	held, err := c.keepOthersOff(ctx, providers, o.others, !o.dryRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	runDir := o.others.runDir
	if held.has(b.ID()) {
		runDir = "" // it is locked
	}
	var res *backup.Restored
	err = c.work("restore", b.Name(), false, func(progress func(done, total int64)) (err error) {
		res, err = backup.Restore(ctx, providers, b, backup.RestoreOptions{
			Force: o.force, DryRun: o.dryRun, InOrder: o.inOrder, RunDir: runDir, Log: c.warnings(), Progress: progress,
			Above: c.recall(b.ID(), o.stateDir).Generation, Begins: held.moveTo,
		})
		return err
	})
	if errors.Is(err, backup.ErrNewer) || errors.Is(err, backup.ErrForeign) {
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
	if snaps := b.Snapshots(); len(snaps) > 0 {
		fmt.Fprintf(c.stdout, "Snapshots: %s\n", strings.Join(snaps, " "))
	}
	if volumes := b.Volumes(); len(volumes) > 0 {
		fmt.Fprintf(c.stdout, "Further volumes: %s\n", strings.Join(volumes, " "))
	}
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
