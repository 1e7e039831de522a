package main

import (
	"context"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func resizeCommand() *command {
	var o jobOptions
	var size int64
	var force bool
	return &command{
		name:     "resize",
		brief:    "Makes a volume larger or smaller",
		also:     "grow shrink lvresize lvextend lvreduce truncate",
		operands: "[-bfnv] [--rate n] " + whereUsage + " -s vir_size name",
		verbose:  true,
		options: func(f *options) {
			o.declare(f)
			f.number(&size, "s", "size")
			f.flag(&force, "f", "force")
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 {
				return c.wrongNumber()
			}
			if size == 0 {
				return failf("The new size is missing: -s vir_size, more than 0")
			}
			args := control.JobArgs{Size: size, Force: force}
			if force && !o.dryRun {
				// What is going to be lost is named before it is.
				dry := o
				dry.dryRun = true
				if err := c.startJob(ctx, c.operands[0], "resize", args, dry); err != nil {
					return err
				}
			}
			return c.startJob(ctx, c.operands[0], "resize", args, o)
		},
		about: `Makes a volume in use larger or smaller. The size is rounded as label rounds it.
It is made smaller only when nothing is allocated beyond the new end.

-s n        the new virtual size
-f          make it smaller even so: what lies beyond the new end is named, and
            lost
` + jobOptionsHelp,
		example: "gvirstor resize -s 4t mydata && growfs /dev/ggate0",
	}
}
