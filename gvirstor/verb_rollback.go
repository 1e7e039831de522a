package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func rollbackCommand() *command {
	var w where
	var force, dryRun bool
	return &command{
		name:     "rollback",
		brief:    "Makes a volume what it was at a snapshot",
		destroys: true,
		operands: "[-fnv] " + whereUsage + " name@snap",
		verbose:  true,
		options: func(f *options) {
			f.flag(&force, "f", "force")
			f.flag(&dryRun, "n", "dry-run")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.rollback(ctx, &w, force, dryRun) },
		about: `Makes a volume what it was when a snapshot of it was taken, at once or not at
all. What was written to it since is lost, but for what other snapshots have.
All snapshots stay. A volume in service is out of service for a moment, and of a
further volume the others are not.

-f          do it, even while the volume is open or clients are connected; else
            what would be lost and who uses it is said, and nothing is done
-n          only tell that` + whereHelp,
		example: "gvirstor rollback -f mydata@monday",
	}
}

// rollback rolls a volume back with force, or when nothing is lost by that.
func (c *call) rollback(ctx context.Context, w *where, force, dryRun bool) error {
	volume, name, err := c.snapshotOperand()
	if err != nil {
		return err
	}
	r := control.RollbackRequest{Snapshot: name, Force: force, DryRun: true}
	var would control.RollbackResult
	err = c.withPool(ctx, volume, w, toRead, func(b *backend) error {
		for _, p := range b.volume.Components {
			r.Providers = append(r.Providers, p.Name)
		}
		if would, err = b.Rollback(ctx, volume, r); err != nil {
			return failf("Can't %w", err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case dryRun:
		fmt.Fprintf(c.stdout, "%s: %s\n", c.operands[0], wouldBeLost(would))
		return nil
	case !force && !would.Nothing():
		return failf("Can't roll %s back to %s: %s; keep that by `gvirstor snapshot %s@NEW`, or roll back with -f", volume, name, wouldBeLost(would), volume)
	}
	r.DryRun = false
	p := toIdentify // whole, for what is written before it is opened
	if _, own := control.SplitName(volume); own != "" {
		p = toChange
	}
	err = c.withPool(ctx, volume, w, p, func(b *backend) error {
		if _, err := b.Rollback(ctx, volume, r); err != nil {
			return failf("Can't %w", err)
		}
		return nil
	})
	if err == nil && c.verbose {
		fmt.Fprintf(c.stdout, "%s is what it was at %s; %d chunks, %d bytes, are taken back.\n", volume, name, would.Chunks, would.Bytes)
	}
	return err
}

// wouldBeLost says what a rollback takes back, and from whom.
func wouldBeLost(r control.RollbackResult) string {
	if r.Nothing() {
		return "nothing was written since"
	}
	text := fmt.Sprintf("%d chunks, %d bytes, were written to or given up since, and would be as they were then; of these %d chunks, %d bytes, no snapshot has: they would be lost",
		r.Chunks, r.Bytes, r.LostChunks, r.LostBytes)
	if r.Smaller > 0 {
		text += fmt.Sprintf("; the volume would be %d bytes smaller", r.Smaller)
	}
	if r.Users != "" {
		text += fmt.Sprintf("; it is in use (%s), which would end", r.Users)
	}
	return text
}
