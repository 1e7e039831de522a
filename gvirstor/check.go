package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
)

func checkCommand() *command {
	var json bool
	return &command{
		name:     "check",
		operands: "[-v] [--json] prov ...",
		options: func(f *options) {
			f.flag(&json, "", "json")
		},
		verbose: true,
		quiet:   true,
		run:     func(ctx context.Context, c *call) error { return c.check(ctx, json) },
		about: `Verifies volumes on the given providers without writing: the metadata of every
component, every entry of the allocation map, the extension block, the fence,
and what FreeBSD's kernel class would make of it. A volume may be in service
meanwhile. Exit status 0: nothing is wrong; 1: something is.

-v          also what is worth knowing only, and figures of each component
--json      as one object`,
		example: "gvirstor check ada4 ada6",
	}
}

func (c *call) check(ctx context.Context, json bool) error {
	if len(c.operands) == 0 {
		return failf("Too few arguments.")
	}
	providers, live, err := openToLook(c.operands)
	defer closeProviders(providers)
	if err != nil {
		return err
	}
	r, err := check.Inspect(ctx, providers, check.Options{Live: live})
	if err != nil {
		return failf("Can't check: %w", err)
	}
	if json {
		err = r.WriteJSON(c.stdout)
	} else {
		err = r.WriteText(c.stdout, c.verbose)
	}
	if err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if r.ExitCode() != 0 {
		return errFindings
	}
	return nil
}

// errFindings ends check with status 1; the report has said why.
var errFindings = errors.New("")

// openToLook opens providers for reading. live reports that somebody else has one
// of them open and may be serving it.
func openToLook(names []string) (providers []geomlib.Provider, live bool, err error) {
	for _, name := range names {
		p, err := geomlib.Open(name, geomlib.OpenOptions{ReadOnly: true})
		if errors.Is(err, geomlib.ErrLocked) {
			live = true
			p, err = geomlib.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		}
		if err != nil {
			return providers, live, failf("Can't open %s: %s", name, errorText(err))
		}
		providers = append(providers, p)
	}
	return providers, live, nil
}

func closeProviders(ps []geomlib.Provider) {
	for _, p := range ps {
		_ = p.Close() // nothing was written through what is not closed elsewhere
	}
}
