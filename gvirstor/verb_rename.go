package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func renameCommand() *command {
	var force, dryRun bool
	var w where
	return &command{
		name:     "rename",
		brief:    "Gives a volume or a snapshot another name",
		also:     "lvrename vgrename",
		operands: "[-fnv] " + whereUsage + " name new | name@snap @new | name/vol /new",
		verbose:  true,
		options: func(f *options) {
			f.flag(&force, "f", "force")
			f.flag(&dryRun, "n", "dry-run")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 2 {
				return c.wrongNumber()
			}
			if !c.isServed(ctx, c.operands[0], &w) { // one that is may have these in its own name
				c.operands[1] = withoutCommon(c.operands[0], c.operands[1])
			}
			if to, ok := strings.CutPrefix(c.operands[1], "@"); ok && strings.Contains(c.operands[0], "@") {
				return c.renameSnapshot(ctx, &w, to, dryRun)
			}
			if to, ok := strings.CutPrefix(c.operands[1], "/"); ok && !strings.HasPrefix(to, "dev/") {
				return c.renameFurther(ctx, &w, to, dryRun)
			}
			if err := ondisk.CheckNewName(c.operands[1]); err != nil {
				return failf("Can't rename %s: %w", c.operands[0], err)
			}
			return c.identify(ctx, &w, control.IdentifyRequest{Name: c.operands[1], Force: force, DryRun: dryRun})
		},
		about: `Gives a volume another name, at once on all its components or not at all. One
in service is out of service for a moment: it must not be open. What the
configuration says of it by its name is to be changed, too. With --offline the
components say which volume is meant, of two that have one name. A snapshot or
a further volume gets another name in service, too, unless clients have it; the
new one may be written in full, behind the same volume or pool.

-f          even while the volume is open or clients are connected
-n          only tell whether it could have that name now` + whereHelp,
		example: "gvirstor rename mydata olddata",
	}
}

// withoutCommon is the new name of a snapshot, or of a further volume, without the volume, or
// pool, that it has in common with the old one.
func withoutCommon(from, to string) string {
	for _, sign := range []string{"@", "/"} {
		if common, _, found := strings.Cut(from, sign); found && common != "" {
			if own, same := strings.CutPrefix(to, common+sign); same {
				return sign + own
			}
			break
		}
	}
	return to
}

func newidCommand() *command {
	var force bool
	var w where
	return &command{
		name:     "newid",
		brief:    "Gives a copied volume a new id",
		also:     "reguid",
		operands: "[-fv] " + whereUsage + " name",
		verbose:  true,
		options: func(f *options) {
			f.flag(&force, "f", "force")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 {
				return c.wrongNumber()
			}
			return c.identify(ctx, &w, control.IdentifyRequest{NewID: true, Force: force})
		},
		about: `Gives a volume a new id, at once on all its components or not at all: for a
set of components that was copied from another, sector by sector, to be served
beside that. Name the components of the copy, and no others, by --offline. It
needs another name, too.

-f          even while the volume is open or clients are connected` + whereHelp,
		example: "gvirstor newid --offline da5,da6 mydata",
	}
}

// renameSnapshot gives the snapshot that the first operand names another name.
func (c *call) renameSnapshot(ctx context.Context, w *where, to string, dryRun bool) error {
	volume, name, err := parseSnapshot(c.operands[0])
	if err == nil {
		_, _, err = parseSnapshot(volume + "@" + to)
	}
	if err != nil {
		return err
	}
	return c.renameWithin(ctx, w, volume, control.RenameSnapshotRequest{Snapshot: name, To: to, DryRun: dryRun})
}

// renameFurther gives the further volume that the first operand names another name.
func (c *call) renameFurther(ctx context.Context, w *where, to string, dryRun bool) error {
	volume, err := parseFurther(c.operands[0])
	if err == nil {
		err = checkOwnName(to)
	}
	if err != nil {
		return err
	}
	return c.renameWithin(ctx, w, volume, control.RenameSnapshotRequest{To: to, DryRun: dryRun})
}

// renameWithin gives what the first operand names, within the pool of volume, another name.
func (c *call) renameWithin(ctx context.Context, w *where, volume string, r control.RenameSnapshotRequest) error {
	return c.withPool(ctx, volume, w, changing(r.DryRun), func(b *backend) error {
		if err := b.RenameSnapshot(ctx, volume, r); err != nil {
			return failf("Can't %w", err)
		}
		if r.DryRun {
			fmt.Fprintf(c.stdout, "%s: could be called %s\n", c.operands[0], r.To)
		}
		return nil
	})
}

// identify gives a volume another name or id.
func (c *call) identify(ctx context.Context, w *where, r control.IdentifyRequest) error {
	name, p := c.operands[0], toIdentify
	if r.DryRun {
		p = toRead
	}
	return c.withBackend(ctx, name, w, p, func(b *backend) error {
		for _, p := range b.volume.Components {
			r.Providers = append(r.Providers, p.Name)
		}
		v, err := b.Identify(ctx, name, r)
		if err != nil {
			return failf("Can't %s %s: %w", c.verb, name, err)
		}
		if r.DryRun {
			fmt.Fprintf(c.stdout, "%s: could be called %s\n", name, r.Name)
			return nil
		}
		if c.verbose {
			fmt.Fprintf(c.stdout, "%s has the id %08x.\n", v.Name, v.ID)
		}
		return nil
	})
}

// refuseTaken refuses the name of a volume that is there already, as far as can be
// told: one in service, or one that GEOM knows of.
func (c *call) refuseTaken(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	if client, err := c.reach(); err == nil {
		defer client.Close()
		if v, err := client.Volume(ctx, name); err == nil {
			return failf("there is a volume named %s (id %08x) already", v.Name, v.ID)
		}
	}
	others, err := c.components(ctx, name)
	switch {
	case errors.Is(err, geomlib.ErrNotSupported):
		return nil
	case err != nil:
		return err
	case len(others) > 0:
		return failf("there is a volume named %s already, on %s", name, others[0])
	}
	return nil
}
