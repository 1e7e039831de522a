package main

import (
	"context"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func addCommand() *command {
	var r control.AddRequest
	return &command{
		name:     "add",
		operands: "[-vh] name prov [prov ...]",
		verbose:  true,
		options:  func(f *options) { f.flag(&r.Hardcode, "h", "hardcode") },
		run:      func(ctx context.Context, c *call) error { return c.add(ctx, r) },
		about: `Adds providers to a volume in service, all of them or none. What they hold is
lost. Writes that waited for space go on when it returns.

-h          write the providers' names into the metadata`,
		example: "gvirstor add mydata ada7",
	}
}

func (c *call) add(ctx context.Context, r control.AddRequest) error {
	client, _, err := c.changeVolume(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if r.Providers, err = allForDaemon(c.operands[1:]); err != nil {
		return err
	}
	if err := client.Add(ctx, c.operands[0], r); err != nil {
		return failf("Can't add to %s: %w", c.operands[0], err)
	}
	return nil
}

// changeVolume begins a verb whose operands are a volume and providers.
func (c *call) changeVolume(ctx context.Context) (*control.Client, control.VolumeStatus, error) {
	if len(c.operands) < 2 {
		return nil, control.VolumeStatus{}, failf("Invalid number of arguments")
	}
	return c.volumeOf(ctx, c.operands[0])
}
