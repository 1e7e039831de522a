package main

import (
	"context"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func evacuateCommand() *command {
	var o jobOptions
	return &command{
		name:     "evacuate",
		brief:    "Moves everything off components and removes them",
		also:     "pvmove migrate",
		operands: "[-bnv] [--rate n] " + whereUsage + " name prov ...",
		verbose:  true,
		options:  o.declare,
		run: func(ctx context.Context, c *call) error {
			return c.evacuate(ctx, o)
		},
		about: `Moves everything off components, while the volume is used, and removes them.
Component 0 hands the allocation map on. Refused at once, with the bytes that
are missing, when the others have no room.
` + jobOptionsHelp,
		example: "gvirstor evacuate --rate 50m mydata ada4",
	}
}

func (c *call) evacuate(ctx context.Context, o jobOptions) error {
	if len(c.operands) < 2 {
		return c.wrongNumber()
	}
	provs, err := allForDaemon(c.operands[1:])
	if err != nil {
		return err
	}
	return c.startJob(ctx, c.operands[0], "evacuate", control.JobArgs{Providers: provs}, o)
}

func replaceCommand() *command {
	var o jobOptions
	var force bool
	return &command{
		name:     "replace",
		brief:    "Moves a component to another disk",
		operands: "[-bfnv] [--rate n] " + whereUsage + " name old new",
		verbose:  true,
		options: func(f *options) {
			o.declare(f)
			f.flag(&force, "f", "force")
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 3 {
				return c.wrongNumber()
			}
			provs, err := allForDaemon(c.operands[1:])
			if err != nil {
				return err
			}
			if err := c.mayTake(ctx, provs[1:], o.where.runDir); err != nil {
				return err
			}
			return c.startJob(ctx, c.operands[0], "replace", control.JobArgs{Providers: provs[:1], Target: provs[1], Force: force}, o)
		},
		about: `Adds a provider, moves everything from one component to it, and removes the
old one. A new one that holds something, such as a file system, is refused.

-f          take the new one whatever it holds: that is lost
` + jobOptionsHelp,
		example: "gvirstor replace mydata ada4 ada9",
	}
}
