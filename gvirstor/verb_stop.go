package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func destroyCommand() *command {
	return stopVerb("destroy", "", "[-fv] [--offline prov,...] [--force-old] [--run-dir dir] [--state-dir dir] name ...")
}

func stopCommand() *command {
	return stopVerb("stop", "export deactivate halt down", `[-fv] [--offline prov,...] [--force-old] [--run-dir dir] [--state-dir dir] name ... (alias for "destroy")`)
}

func stopVerb(name, also, operands string) *command {
	var force bool
	var w where
	return &command{
		name:     name,
		brief:    "Ends the service of volumes",
		also:     also,
		destroys: name == "destroy",
		operands: operands,
		verbose:  true,
		options: func(f *options) {
			f.flag(&force, "f", "force")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			if w.offline != "" {
				return c.stopOffline(ctx, force, &w)
			}
			return c.stop(ctx, force)
		},
		about: `Ends the service of volumes. Their data stays on the components. Where that is
safe a volume is handed back: FreeBSD's kernel class may run it. Else it stays
fenced (metadata version 2), which is told.

-f          even while the volume is open or clients are connected; writes that
            wait for space fail
--offline p,...
            hand a volume back that is in service no more, of these
            components, which must be all
--force-old the components of a stopped volume may be older than what this host
            served; what was written since is lost
--run-dir   folder of the daemon's locks
--state-dir folder of its notes of what this host served`,
		example: "gvirstor " + name + " -v mydata",
	}
}

func (c *call) stop(ctx context.Context, force bool) error {
	if len(c.operands) == 0 {
		return failf("Invalid number of arguments")
	}
	client, err := c.connect()
	if errors.Is(err, control.ErrNotRunning) {
		return failf("%w; a volume that is in service no more is handed back by --offline with its components", err)
	}
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range c.operands {
		if err := c.stopOne(ctx, client, name, force, "is stopped and stays fenced"); err != nil {
			return err
		}
	}
	return nil
}

// stopOffline hands back a volume that is in service no more.
func (c *call) stopOffline(ctx context.Context, force bool, w *where) error {
	if len(c.operands) != 1 {
		return failf("Invalid number of arguments")
	}
	name := c.operands[0]
	return c.withBackend(ctx, name, w, toIdentify, func(b *backend) error { return c.stopOne(ctx, b, name, force, "stays fenced") })
}

// stopOne stops a volume. fenced says that it is not handed back.
func (c *call) stopOne(ctx context.Context, v control.Verbs, name string, force bool, fenced string) error {
	r, err := v.Stop(ctx, name, control.StopRequest{Force: force})
	switch {
	case err != nil && control.KindOf(err) == control.NotFound:
		return unknownVolume(ctx, v, name)
	case err != nil:
		return failf("Can't stop %s: %w", name, err)
	case !r.HandedBack:
		c.warnFenced(name, fenced, r.Reasons)
	case c.verbose:
		fmt.Fprintf(c.stdout, handedBack, name)
	}
	return nil
}

// handedBack is what -v says of a volume that the kernel class may have.
const handedBack = "%s is stopped and handed back (metadata version 1).\n"

func (c *call) warnFenced(volume, how string, reasons []string) {
	c.warn(fmt.Sprintf("warning: %s %s from the kernel class: %s", volume, how, fencedBecause(reasons)))
}

func fencedBecause(reasons []string) string {
	if len(reasons) == 0 {
		return "it was not opened for writing"
	}
	return strings.Join(reasons, "; ")
}
