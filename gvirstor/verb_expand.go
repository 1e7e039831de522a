package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

func expandCommand() *command {
	var offline string
	return &command{
		name:     "expand",
		brief:    "Takes up the new size of providers that have grown",
		also:     "pvresize online",
		operands: "[-v] [--offline prov,...] name prov ...",
		verbose:  true,
		options:  func(f *options) { f.text(&offline, "offline") },
		run: func(ctx context.Context, c *call) error {
			w := where{offline: offline}
			return c.expand(ctx, w.components())
		},
		about: `Makes providers that have grown components again: their metadata is looked for
from their end backwards and moved to it, and the new space is used. Space that
was regained may hold metadata of an earlier label: with other components of
the volume at hand only what agrees with them is believed, and without them
only what is the only one on the provider. The volume must be stopped; it is
not found without such a component anyway. A volume that had been handed back
may be fenced by this: start and stop it again.

--offline p,...
            other components of the volume; on FreeBSD they are found without`,
		example: "gvirstor expand --offline da0 mydata da1",
	}
}

func (c *call) expand(ctx context.Context, others []string) error {
	if len(c.operands) < 2 {
		return c.wrongNumber()
	}
	if others == nil {
		var err error
		if others, err = c.components(ctx, c.operands[0]); err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
			return err
		}
	}
	for i, name := range c.operands[1:] {
		// Those that were expanded before are components again.
		known, err := c.othersOf(ctx, name, slices.Concat(others, c.operands[1:1+i]))
		if err != nil {
			return err
		}
		if err := c.expandOne(ctx, c.operands[0], name, known); err != nil {
			return err
		}
	}
	return nil
}

// othersOf is what the named providers but one say of the volume that they are of.
func (c *call) othersOf(ctx context.Context, one string, names []string) ([]ondisk.Metadata, error) {
	var all []ondisk.Metadata
	for _, name := range names {
		if name == one {
			continue
		}
		p, err := c.open(ctx, name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		if err != nil {
			return nil, failf("Can't open %s: %s", name, providerText(name, err))
		}
		m, err := geomlib.ReadMetadata(p)
		_ = p.Close() // only read from
		if err != nil {
			return nil, failf("Can't read metadata from %s: %s", name, metadataText(err))
		}
		all = append(all, m)
	}
	return all, nil
}

func (c *call) expandOne(ctx context.Context, volume, name string, others []ondisk.Metadata) error {
	p, err := c.open(ctx, name, geomlib.OpenOptions{})
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	defer p.Close()
	was, is, err := virstor.Expand(ctx, p, virstor.Expansion{Volume: volume, Others: others})
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	if is.Version != was.Version {
		c.warn(fmt.Sprintf("%s is fenced from the kernel class now: start the daemon, and 'gvirstor stop %s' hands it back", volume, volume))
	}
	if c.verbose {
		fmt.Fprintf(c.stdout, "%s has %d chunks now, %d before\n", name, is.ChunkCount, was.ChunkCount)
	}
	return nil
}
