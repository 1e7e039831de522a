package main

import (
	"context"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func removeCommand() *command {
	var evacuate bool
	return &command{
		name:     "remove",
		operands: "[-ev] name prov [prov ...]",
		verbose:  true,
		options:  func(f *options) { f.flag(&evacuate, "e", "evacuate") },
		run: func(ctx context.Context, c *call) error {
			if evacuate && len(c.operands) > 1 {
				provs, err := allForDaemon(c.operands[1:])
				if err != nil {
					return err
				}
				return c.startJob(ctx, c.operands[0], "evacuate", control.JobArgs{Providers: provs}, jobOptions{})
			}
			return c.remove(ctx)
		},
		about: `Takes components that hold no data out of a volume in service. Component 0,
which holds the allocation map, stays.

-e          move what they hold to the others first, and the map too (see
            'gvirstor help evacuate')`,
		example: "gvirstor remove mydata ada7",
	}
}

func (c *call) remove(ctx context.Context) error {
	client, v, err := c.changeVolume(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	var names []string
	for _, operand := range c.operands[1:] {
		name, err := componentName(&v, operand)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	if err := client.Remove(ctx, c.operands[0], control.RemoveRequest{Providers: names}); err != nil {
		return failf("Can't remove from %s: %w", c.operands[0], err)
	}
	return nil
}

// componentName is the name under which v has the component that operand means.
func componentName(v *control.VolumeStatus, operand string) (string, error) {
	for _, c := range v.Components {
		if strings.TrimPrefix(c.Name, "/dev/") == strings.TrimPrefix(operand, "/dev/") {
			return c.Name, nil
		}
	}
	return forDaemon(operand)
}
