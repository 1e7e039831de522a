package main

import (
	"context"
	"errors"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func removeCommand() *command {
	var evacuate bool
	w := newWhere()
	return &command{
		name:     "remove",
		operands: "[-ev] " + whereUsage + " name prov [prov ...]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&evacuate, "e", "evacuate")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error {
			if evacuate {
				return c.evacuate(ctx, jobOptions{where: w})
			}
			return c.remove(ctx, w)
		},
		about: `Takes components that hold no data out of a volume. Component 0, which holds
the allocation map, stays.

-e          move what they hold to the others first, and the map too (see
            'gvirstor help evacuate')` + whereHelp,
		example: "gvirstor remove mydata ada7",
	}
}

func (c *call) remove(ctx context.Context, w where) (err error) {
	if len(c.operands) < 2 {
		return failf("Invalid number of arguments")
	}
	volume, err := c.changer(ctx, c.operands[0], w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, volume.close()) }()
	names, err := components(volume, c.operands[1:])
	if err != nil {
		return err
	}
	if err := volume.Remove(ctx, c.operands[0], control.RemoveRequest{Providers: names}); err != nil {
		return failf("Can't remove from %s: %w", c.operands[0], err)
	}
	return nil
}

// components are the names under which the volume has the components that operands
// mean.
func components(volume changer, operands []string) ([]string, error) {
	var names []string
	for _, operand := range operands {
		name, err := volume.component(operand)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
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
