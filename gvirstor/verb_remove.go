package main

import (
	"context"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func removeCommand() *command {
	var evacuate bool
	var o jobOptions
	return &command{
		name:     "remove",
		brief:    "Takes components out of a volume",
		also:     "detach vgreduce",
		operands: "[-benv] [--rate n] " + whereUsage + " name prov [prov ...]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&evacuate, "e", "evacuate")
			o.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			switch {
			case evacuate:
				return c.evacuate(ctx, o)
			case o.rate != 0 || o.dryRun || o.background:
				return &usageError{"-b, -n and --rate are for what -e moves"}
			}
			return c.remove(ctx, &o.where)
		},
		about: `Takes components that hold no data out of a volume. Component 0, which holds
the allocation map, stays.

-e          move what they hold to the others first, and the map too, as
            'gvirstor evacuate' does. With it:

` + strings.TrimPrefix(jobOptionsHelp, "\n"),
		example: "gvirstor remove mydata ada7",
	}
}

func (c *call) remove(ctx context.Context, w *where) error {
	if len(c.operands) < 2 {
		return failf("Invalid number of arguments")
	}
	name := c.operands[0]
	return c.withBackend(ctx, name, w, toChange, func(b *backend) error {
		var r control.RemoveRequest
		for _, operand := range c.operands[1:] {
			known, err := componentName(&b.volume, operand)
			if err != nil {
				return failf("Can't remove from %s: %w", name, err)
			}
			r.Providers = append(r.Providers, known)
		}
		if err := b.Remove(ctx, name, r); err != nil {
			return failf("Can't remove from %s: %w", name, err)
		}
		return nil
	})
}
