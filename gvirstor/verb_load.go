package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
)

// module is the kernel's part that the daemon needs to publish devices.
const module = "geom_gate"

// kernel is what the program asks of FreeBSD's. On other systems loading and
// unloading fail with errNoModules, and tree with geomlib.ErrNotSupported.
type kernel interface {
	// tree is GEOM's configuration.
	tree(ctx context.Context) (*geomlib.Tree, error)
	// load is a no-op when the module is there.
	load() error
	// find fails when the module is not loaded as a file of its own.
	find() (id int, err error)
	unload(id int) error
}

var errNoModules = errors.New("geom_gate is a part of FreeBSD's kernel; on this system volumes are published by NBD, which needs nothing loaded")

func loadCommand() *command {
	return &command{
		name:     "load",
		brief:    "Loads geom_gate",
		also:     "kldload",
		operands: "[-v]",
		verbose:  true,
		run:      func(_ context.Context, c *call) error { return c.load() },
		about: `Loads geom_gate, the kernel's part of publishing volumes as devices, unless it
is there. The kernel class geom_virstor is neither needed nor loaded.`,
		example: "gvirstor load -v",
	}
}

func (c *call) load() error {
	if err := c.kernel.load(); errors.Is(err, errNoModules) {
		return failf("cannot load %s: %w", module, err)
	} else if err != nil {
		return failf("cannot load %s: %s", module, errorText(err))
	}
	if c.verbose {
		fmt.Fprintln(c.stdout, "Module available.")
	}
	return nil
}

func unloadCommand() *command {
	return &command{
		name:     "unload",
		brief:    "Unloads geom_gate",
		also:     "kldunload",
		operands: "[-v]",
		verbose:  true,
		run:      func(_ context.Context, c *call) error { return c.unload() },
		about: `Unloads geom_gate. While anything is published by it, be it by another
daemon, the kernel refuses.`,
		example: "gvirstor unload",
	}
}

func (c *call) unload() error {
	id, err := c.kernel.find()
	if errors.Is(err, errNoModules) {
		return failf("Could not unload module: %w", err)
	}
	if err != nil {
		return failf("Could not find module: %s.", errorText(err))
	}
	if err := c.kernel.unload(id); err != nil {
		return failf("Could not unload module: %s.", errorText(err))
	}
	return nil
}
