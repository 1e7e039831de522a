package main

import (
	"context"
	"errors"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func addCommand() *command {
	var r control.AddRequest
	w := newWhere()
	return &command{
		name:     "add",
		operands: "[-vh] " + whereUsage + " name prov [prov ...]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&r.Hardcode, "h", "hardcode")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.add(ctx, r, w) },
		about: `Adds providers to a volume, all of them or none. What they hold is lost. The
volume may be in service: writes that waited for space go on when it returns.

-h          write the providers' names into the metadata` + whereHelp,
		example: "gvirstor add mydata ada7",
	}
}

func (c *call) add(ctx context.Context, r control.AddRequest, w where) (err error) {
	if len(c.operands) < 2 {
		return failf("Invalid number of arguments")
	}
	volume, err := c.changer(ctx, c.operands[0], w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, volume.close()) }()
	if r.Providers, err = allForDaemon(c.operands[1:]); err != nil {
		return err
	}
	if err := volume.Add(ctx, c.operands[0], r); err != nil {
		return failf("Can't add to %s: %w", c.operands[0], err)
	}
	return nil
}
