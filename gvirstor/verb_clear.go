package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

func clearCommand() *command {
	return &command{
		name:     "clear",
		brief:    "Clears the metadata of providers",
		destroys: true,
		operands: "[-v] prov ...",
		verbose:  true,
		run:      func(ctx context.Context, c *call) error { return c.clear(ctx) },
		about: `Clears the metadata of providers, which then are no components any more: the
volume that they were part of is lost. Providers without metadata of a volume
are left alone, and so are those in service.`,
		example: "gvirstor clear -v ada4 ada6",
	}
}

func (c *call) clear(ctx context.Context) error {
	if len(c.operands) == 0 {
		return failf("Too few arguments.")
	}
	failed := false
	for _, name := range c.operands {
		err := c.clearProvider(ctx, name)
		switch {
		case errors.Is(err, geomlib.ErrSwap):
			fmt.Fprintf(c.stderr, "Can't clear metadata on %s: %s (%v: swapoff it first)\n", ondisk.Printable(name), errorText(err), geomlib.ErrSwap)
			failed = true
		case errors.Is(err, geomlib.ErrLocked):
			fmt.Fprintf(c.stderr, "Can't clear metadata on %s: %s (stop the volume first)\n", ondisk.Printable(name), providerText(name, err))
			failed = true
		case err != nil:
			fmt.Fprintf(c.stderr, "Can't clear metadata on %s: %s (do I own it?)\n", ondisk.Printable(name), providerText(name, err))
			failed = true
		case c.verbose:
			fmt.Fprintf(c.stdout, "Metadata cleared on %s.\n", name)
		}
	}
	if failed {
		return failf("Not fully done (can't clear metadata).")
	}
	return nil
}

func (c *call) clearProvider(ctx context.Context, name string) (err error) {
	p, err := c.open(ctx, name, geomlib.OpenOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return geomlib.ClearMetadata(p)
}
