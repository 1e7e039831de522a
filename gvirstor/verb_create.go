package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func createCommand() *command {
	var w where
	var size, quota int64
	var dryRun bool
	return &command{
		name:     "create",
		brief:    "Makes a further volume in the pool of a volume",
		also:     "lvcreate",
		operands: "[-nv] -s size [--quota size] " + whereUsage + " name/vol",
		verbose:  true,
		options: func(f *options) {
			f.flag(&dryRun, "n", "dry-run")
			f.number(&size, "s", "size")
			f.number(&quota, "", "quota")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			if size <= 0 {
				return &usageError{"-s takes the size of the volume"}
			}
			return c.create(ctx, &w, control.CreateRequest{Size: size, Quota: quota, DryRun: dryRun})
		},
		about: `Makes a further volume on the components of a volume, which reads as zeros and
takes chunks as it is written to; it is on stable storage when it returns. NBD
clients find it as the export name/vol. A volume with further ones cannot be
handed back, and none of its components can leave; see delete. The name has
1 to 63 letters, digits and . _ - :

-s size     how large it is; rounded up to whole chunks
--quota n   how much it may have of the components at most; see quota
-n          only tell what it would take` + whereHelp,
		example: "gvirstor create -s 500g mydata/web",
	}
}

func cloneCommand() *command {
	var w where
	var dryRun bool
	return &command{
		name:     "clone",
		brief:    "Makes a further volume of a snapshot",
		operands: "[-nv] " + whereUsage + " name@snap name/vol",
		verbose:  true,
		options: func(f *options) {
			f.flag(&dryRun, "n", "dry-run")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.clone(ctx, &w, dryRun) },
		about: `Makes a further volume that begins as a snapshot, and can be written to. The two
have their chunks in common until one is written to there. The snapshot cannot
be deleted as long as the clone is there. All else is as with create.

-n          only tell what it would take` + whereHelp,
		example: "gvirstor clone mydata@monday mydata/test",
	}
}

func quotaCommand() *command {
	var w where
	var dryRun bool
	return &command{
		name:     "quota",
		brief:    "Limits what a further volume may have of its pool",
		operands: "[-nv] " + whereUsage + " size | none name/vol",
		verbose:  true,
		options: func(f *options) {
			f.flag(&dryRun, "n", "dry-run")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.quota(ctx, &w, dryRun) },
		about: `Lets a further volume have chunks of so many bytes at most, those included that
it has in common with what it is a clone of. What it has it keeps. A write that
would need more fails at once with ENOSPC, and is not held.

-n          only tell what it has of that already` + whereHelp,
		example: "gvirstor quota 100g mydata/web",
	}
}

func (c *call) quota(ctx context.Context, w *where, dryRun bool) error {
	if len(c.operands) != 2 {
		return c.wrongNumber()
	}
	r := control.QuotaRequest{DryRun: dryRun}
	if c.operands[0] != "none" {
		n, err := control.ExpandNumber(c.operands[0])
		if err != nil || n <= 0 {
			return failf("Invalid quota: %s is not a size, and not none", ondisk.Printable(c.operands[0]))
		}
		r.Bytes = n
	}
	volume, err := parseFurther(c.operands[1])
	if err != nil {
		return err
	}
	return c.withPool(ctx, volume, w, changing(dryRun), func(b *backend) error {
		if err := b.Quota(ctx, volume, r); err != nil {
			return failf("Can't change the %w", err)
		}
		if dryRun {
			fmt.Fprintf(c.stdout, "%s: has %d bytes of its pool; could have %s at most\n", volume, allocatedOf(&b.volume, volume), c.operands[0])
		}
		return nil
	})
}

// allocatedOf is how many bytes of chunks the further volume of that name has.
func allocatedOf(pool *control.VolumeStatus, name string) int64 {
	_, own := control.SplitName(name)
	for _, f := range pool.Volumes {
		if f.Name == own {
			return f.Allocated
		}
	}
	return 0
}

// parseFurther is the operand name/vol.
func parseFurther(operand string) (string, error) {
	pool, own := control.SplitName(operand)
	if pool == "" || own == "" {
		return "", failf("Invalid name of a further volume: %s is not name/vol", ondisk.Printable(operand))
	}
	return pool + "/" + own, checkOwnName(own)
}

// checkOwnName refuses what no further volume can be called.
func checkOwnName(own string) error {
	if err := ondisk.CheckMapName(own); err != nil {
		return failf("Invalid name of a further volume: %w", err)
	}
	return nil
}

// clone is create of the snapshot that the first operand names.
func (c *call) clone(ctx context.Context, w *where, dryRun bool) error {
	if len(c.operands) != 2 {
		return c.wrongNumber()
	}
	of, snapshot, err := parseSnapshot(c.operands[0])
	if err != nil {
		return err
	}
	c.operands = c.operands[1:]
	pool, origin := control.SplitName(of)
	if to, _ := control.SplitName(c.operands[0]); to != pool {
		return failf("Can't clone %s@%s as %s: they are of two pools", ondisk.Printable(of), ondisk.Printable(snapshot), ondisk.Printable(c.operands[0]))
	}
	return c.create(ctx, w, control.CreateRequest{Snapshot: snapshot, Origin: origin, DryRun: dryRun})
}

// create makes the further volume that the one operand names.
func (c *call) create(ctx context.Context, w *where, r control.CreateRequest) error {
	if len(c.operands) != 1 {
		return c.wrongNumber()
	}
	volume, err := parseFurther(c.operands[0])
	if err != nil {
		return err
	}
	return c.withPool(ctx, volume, w, changing(r.DryRun), func(b *backend) error {
		res, err := b.Create(ctx, volume, r)
		if err != nil {
			return failf("Can't %w", err)
		}
		if r.DryRun {
			fmt.Fprintf(c.stdout, "%s: of %d bytes; its map would take %d chunks, %d bytes\n", volume, res.Size, res.MapChunks, res.MapBytes)
		} else if c.verbose {
			fmt.Fprintf(c.stdout, "%s: of %d bytes; its map takes %d chunks, %d bytes\n", volume, res.Size, res.MapChunks, res.MapBytes)
		}
		return nil
	})
}
