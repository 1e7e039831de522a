package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

func clearCommand() *command {
	var o otherHosts
	return &command{
		name:     "clear",
		brief:    "Clears the metadata of providers",
		destroys: true,
		operands: "[-v] " + otherHostsUsage + " prov ...",
		verbose:  true,
		options:  o.declare,
		run:      func(ctx context.Context, c *call) error { return c.clear(ctx, o) },
		about: `Clears the metadata of providers, which then are no components any more: the
volume that they were part of is lost. Providers without metadata of a volume
are left alone, and so are those in service, be it on another host: of a volume
that several hosts reach name component 0, where its lease is, too, unless it is
among this machine's disks or beside the files that are named.
` + otherHostsHelp,
		example: "gvirstor clear -v ada4 ada6",
	}
}

func (c *call) clear(ctx context.Context, o otherHosts) (err error) {
	if len(c.operands) == 0 {
		return failf("Too few arguments.")
	}
	var providers []geomlib.Provider
	defer func() {
		for _, p := range providers {
			err = errors.Join(err, p.Close())
		}
	}()
	opened := make([]geomlib.Provider, len(c.operands))
	why := make([]error, len(c.operands))
	for i, name := range c.operands {
		if opened[i], why[i] = c.open(ctx, name, geomlib.OpenOptions{}); why[i] == nil {
			providers = append(providers, opened[i])
		}
	}
	held, err := c.keepOthersOff(ctx, providers, o, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	failed := false
	for i, name := range c.operands {
		if why[i] == nil {
			why[i] = geomlib.ClearMetadata(opened[i])
		}
		switch {
		case why[i] != nil:
			c.cannotClear(ctx, name, why[i])
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

// cannotClear says why, as the original does.
func (c *call) cannotClear(ctx context.Context, name string, err error) {
	why := providerText(name, err) + " (do I own it?)"
	switch {
	case errors.Is(err, geomlib.ErrSwap):
		why = fmt.Sprintf("%s (%v: swapoff it first)", errorText(err), geomlib.ErrSwap)
	case errors.Is(err, geomlib.ErrLocked):
		why = fmt.Sprintf("%s (%s)", providerText(name, err), c.busyText(ctx, name, "stop the volume first"))
	}
	fmt.Fprintf(c.stderr, "Can't clear metadata on %s: %s\n", ondisk.Printable(name), why)
}
