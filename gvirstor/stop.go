package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func destroyCommand() *command { return stopVerb("destroy", "[-fv] name ...") }

func stopCommand() *command { return stopVerb("stop", `[-fv] name ... (alias for "destroy")`) }

func stopVerb(name, operands string) *command {
	var force bool
	return &command{
		name:     name,
		operands: operands,
		verbose:  true,
		options:  func(f *options) { f.flag(&force, "f", "force") },
		run:      func(ctx context.Context, c *call) error { return c.stop(ctx, force) },
		about: `Ends the service of volumes. Their data stays on the components. Where that is
safe a volume is handed back: FreeBSD's kernel class may run it. Else it stays
fenced (metadata version 2), which is told.

-f          even while the volume is open or clients are connected; writes that
            wait for space fail`,
		example: "gvirstor " + name + " -v mydata",
	}
}

func (c *call) stop(ctx context.Context, force bool) error {
	if len(c.operands) == 0 {
		return failf("Invalid number of arguments")
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range c.operands {
		r, err := client.Stop(ctx, name, control.StopRequest{Force: force})
		switch {
		case control.KindOf(err) == control.NotFound:
			return unknownVolume(name)
		case err != nil:
			return failf("Can't stop %s: %w", name, err)
		case !r.HandedBack:
			c.warn(fmt.Sprintf("warning: %s is stopped and stays fenced from the kernel class: %s", name, fencedBecause(r.Reasons)))
		case c.verbose:
			fmt.Fprintf(c.stdout, "%s is stopped and handed back (metadata version 1).\n", name)
		}
	}
	return nil
}

func fencedBecause(reasons []string) string {
	if len(reasons) == 0 {
		return "it was not opened for writing"
	}
	return strings.Join(reasons, "; ")
}
