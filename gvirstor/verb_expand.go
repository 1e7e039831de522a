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
	var takeOver bool
	return &command{
		name:     "expand",
		brief:    "Takes up the new size of providers that have grown",
		also:     "pvresize online",
		operands: "[-v] [--offline prov,...] [--takeover] name prov ...",
		verbose:  true,
		options: func(f *options) {
			f.text(&offline, "offline")
			f.flag(&takeOver, "", "takeover")
		},
		run: func(ctx context.Context, c *call) error {
			w := where{offline: offline}
			return c.expand(ctx, w.components(), takeOver)
		},
		about: `Makes providers that have grown components again: their metadata is looked for
from their end backwards and moved to it, and the new space is used. Space that
was regained may hold metadata of an earlier label: with other components of
the volume at hand only what agrees with them is believed, and without them
only what is the only one on the provider. The volume must be stopped; it is
not found without such a component anyway. A volume that had been handed back
may be fenced by this: start and stop it again.

--offline p,...
            other components of the volume; on FreeBSD they are found without
--takeover  no other host serves the volume, as you know for certain: its lease
            is not looked at`,
		example: "gvirstor expand --offline da0 mydata da1",
	}
}

func (c *call) expand(ctx context.Context, others []string, takeOver bool) error {
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
		known, lease, err := c.othersOf(ctx, name, slices.Concat(others, c.operands[1:1+i]))
		if err != nil {
			return err
		}
		if takeOver {
			lease = func(geomlib.Provider, ondisk.Metadata) error { return nil }
		} else {
			lease = c.orElsewhere(ctx, name, lease)
		}
		if err := c.expandOne(ctx, name, virstor.Expansion{Volume: c.operands[0], Others: known}, lease); err != nil {
			return err
		}
	}
	return nil
}

// mayChange refuses to change a provider with that metadata.
type mayChange func(geomlib.Provider, ondisk.Metadata) error

// othersOf is what the named providers but one say of the volume that they are of, and what
// its lease, on one of them or on the provider itself, says of who may change that.
func (c *call) othersOf(ctx context.Context, one string, names []string) (all []ondisk.Metadata, may mayChange, err error) {
	leases := make(map[uint32]*virstor.LeaseOwner) // on components 0, by the volume's id
	for _, name := range names {
		if name == one {
			continue
		}
		p, err := c.open(ctx, name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		if err != nil {
			return nil, nil, failf("Can't open %s: %s", name, providerText(name, err))
		}
		m, err := geomlib.ReadMetadata(p)
		if err == nil && m.No == 0 {
			leases[m.ID], err = virstor.LeaseOn(p, m)
		}
		_ = p.Close() // only read from
		if err != nil {
			return nil, nil, failf("Can't read metadata from %s: %s", name, metadataText(err))
		}
		all = append(all, m)
	}
	return all, func(p geomlib.Provider, m ondisk.Metadata) (err error) {
		l, seen := leases[m.ID]
		_, reached := p.(geomlib.Guarded)
		switch {
		case m.No == 0:
			if l, err = virstor.LeaseOn(p, m); err != nil {
				return err
			}
		case reached && !seen:
			return fmt.Errorf("%w: name component 0 by --offline, or, if no other host serves the volume for certain, --takeover", virstor.ErrLeaseHidden)
		}
		if l != nil && !l.Released {
			return fmt.Errorf("%w: %v: stop the volume there first, or, if that host is dead for certain, --takeover", virstor.ErrLeased, l)
		}
		return nil
	}, nil
}

// orElsewhere is may, and looks for the lease where nobody has named it, too.
func (c *call) orElsewhere(ctx context.Context, name string, may mayChange) mayChange {
	return func(p geomlib.Provider, m ondisk.Metadata) error {
		if err := may(p, m); err != nil || m.No == 0 {
			return err
		}
		zero, err := c.findZero(ctx, m.ID, []string{name})
		if zero == nil || err != nil {
			return err
		}
		defer zero.Close() // it is only read
		return refuseLeased(zero, m.ID, 0)
	}
}

func (c *call) expandOne(ctx context.Context, name string, e virstor.Expansion, may mayChange) error {
	p, err := c.open(ctx, name, geomlib.OpenOptions{})
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	defer p.Close()
	// What cannot be found Expand tells.
	if m, _, err := e.FindMetadata(ctx, p); err == nil {
		if err := may(p, m); err != nil {
			return failf("Can't expand %s: %w", name, err)
		}
	}
	was, is, err := virstor.Expand(ctx, p, e)
	if err != nil {
		return failf("Can't expand %s: %w", name, err)
	}
	if is.Version != was.Version {
		c.warn(fmt.Sprintf("%s is fenced from the kernel class now: start the daemon, and 'gvirstor stop %s' hands it back", e.Volume, e.Volume))
	}
	if c.verbose {
		fmt.Fprintf(c.stdout, "%s has %d chunks now, %d before\n", name, is.ChunkCount, was.ChunkCount)
	}
	return nil
}
