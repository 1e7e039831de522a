package main

import (
	"context"
	"fmt"

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
		operands: "[-bfnv] [--rate n] " + whereUsage + " -s vir_size name | name/vol",
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
			if _, own := control.SplitName(c.operands[0]); own != "" {
				return c.resizeFurther(ctx, &o, control.ResizeRequest{Size: size, Force: force, DryRun: o.dryRun})
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
It is made smaller only when nothing is allocated beyond the new end. A further
volume has its new size at once, without a job.

-s n        the new virtual size
-f          make it smaller even so: what lies beyond the new end is named, and
            lost
` + jobOptionsHelp,
		example: "gvirstor resize -s 4t mydata && growfs /dev/ggate0",
	}
}

// resizeFurther is resize of a further volume.
func (c *call) resizeFurther(ctx context.Context, o *jobOptions, r control.ResizeRequest) error {
	if o.background || o.rate != 0 {
		return &usageError{"a further volume is resized at once, without -b and --rate"}
	}
	volume, err := parseFurther(c.operands[0])
	if err != nil {
		return err
	}
	return c.withPool(ctx, volume, &o.where, changing(r.DryRun), func(b *backend) error {
		res, err := b.Resize(ctx, volume, r)
		switch {
		case err != nil:
			return failf("Can't %w", err)
		case r.DryRun:
			fmt.Fprintf(c.stdout, "%s: would have %d bytes; %d chunks, %d bytes, would be lost\n", volume, res.Size, res.LostChunks, res.LostBytes)
		case res.LostChunks > 0:
			fmt.Fprintf(c.stdout, "%s: %d bytes; %d chunks, %d bytes, are lost\n", volume, res.Size, res.LostChunks, res.LostBytes)
		case c.verbose:
			fmt.Fprintf(c.stdout, "%s: %d bytes\n", volume, res.Size)
		}
		return nil
	})
}
