package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

func expandCommand() *command {
	return &command{
		name:     "expand",
		operands: "[-v] name prov ...",
		verbose:  true,
		run:      func(ctx context.Context, c *call) error { return c.expand(ctx) },
		about: `Makes providers that have grown components again: their metadata is looked for
from their end backwards and moved to it, and the new space is used. The volume
must be stopped; it is not found without such a component anyway. A volume that
had been handed back may be fenced by this: start and stop it again.`,
		example: "gvirstor expand mydata da1",
	}
}

func (c *call) expand(ctx context.Context) error {
	if len(c.operands) < 2 {
		return c.wrongNumber()
	}
	for _, name := range c.operands[1:] {
		if err := c.expandOne(ctx, c.operands[0], name); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) expandOne(ctx context.Context, volume, name string) error {
	p, err := c.open(ctx, name, geomlib.OpenOptions{})
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	defer p.Close()
	found, _, err := virstor.FindMetadata(ctx, p, nil)
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	if ondisk.Printable(found.Name) != volume {
		return failf("Can't expand %s: it is a component of %s", name, ondisk.Printable(found.Name))
	}
	m, err := virstor.Expand(ctx, p, nil)
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	if m.Version != found.Version {
		c.warn(fmt.Sprintf("%s is fenced from the kernel class now: start the daemon, and 'gvirstor stop %s' hands it back", volume, volume))
	}
	if c.verbose {
		fmt.Fprintf(c.stdout, "%s has %d chunks now, %d before\n", name, m.ChunkCount, found.ChunkCount)
	}
	return nil
}
