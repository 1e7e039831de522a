package main

import (
	"context"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func addCommand() *command {
	var r control.AddRequest
	var w where
	return &command{
		name:     "add",
		brief:    "Adds providers to a volume",
		also:     "attach vgextend extend",
		operands: "[-fhv] " + whereUsage + " name prov [prov ...]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&r.Force, "f", "force")
			f.flag(&r.Hardcode, "h", "hardcode")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.add(ctx, r, &w) },
		about: `Adds providers to a volume, all of them or none. Those that hold something, such
as a file system, a partition table or another volume's label, are named and
refused. The volume may be in service: writes that waited for space go on when
it returns.

-f          add them whatever they hold: that is lost
-h          write the providers' names into the metadata` + whereHelp,
		example: "gvirstor add mydata ada7",
	}
}

func (c *call) add(ctx context.Context, r control.AddRequest, w *where) (err error) {
	if len(c.operands) < 2 {
		return failf("Invalid number of arguments")
	}
	name := c.operands[0]
	if r.Providers, err = allForDaemon(c.operands[1:]); err != nil {
		return err
	}
	if err := c.mayTake(ctx, r.Providers, w.runDir); err != nil {
		return err
	}
	return c.withBackend(ctx, name, w, toChange, func(b *backend) error {
		switch err := b.Add(ctx, name, r); {
		case err == nil:
			return nil
		case inKernelsWords(control.CodeOf(err)):
			return failf("%w", err)
		default:
			return failf("Can't add to %s: %w", name, err)
		}
	})
}

// inKernelsWords reports whether a failure is told as the kernel class refuses an add,
// which geom(8) prints as it is.
func inKernelsWords(c control.Code) bool {
	switch c {
	case control.ProviderNotFound, control.ProviderTooSmall, control.SectorSizeDiffers, control.AlreadyComponent:
		return true
	}
	return false
}
