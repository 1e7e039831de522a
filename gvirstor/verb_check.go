package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
)

func checkCommand() *command {
	var json bool
	return &command{
		name:     "check",
		brief:    "Verifies volumes without writing",
		also:     "fsck scrub verify",
		operands: "[-v] [--json] name | prov ...",
		options: func(f *options) {
			f.flag(&json, "", "json")
		},
		verbose: true,
		quiet:   true,
		run:     func(ctx context.Context, c *call) error { return c.check(ctx, json) },
		about: `Verifies volumes on the given providers without writing: the metadata of every
component, every entry of the allocation map, the extension block, the fence,
and what FreeBSD's kernel class would make of it. A volume may be in service
meanwhile, and is then found by its name too. Exit status 0: nothing is wrong;
1: something is.

-v          also what is worth knowing only, and figures of each component
--json      as one object`,
		example: "gvirstor check ada4 ada6",
	}
}

func (c *call) check(ctx context.Context, json bool) error {
	if len(c.operands) == 0 {
		return c.tooFew()
	}
	names, err := c.componentNames(ctx, c.operands)
	if err != nil {
		return err
	}
	providers, live, err := c.openToLook(names)
	defer closeProviders(providers)
	if err != nil {
		return err
	}
	r, err := c.inspect(ctx, providers, check.Options{Live: live})
	if err != nil {
		return err
	}
	if json {
		err = printJSON(c.stdout, r)
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

// inspect checks the volumes on providers, and tells how far it is.
func (c *call) inspect(ctx context.Context, providers []geomlib.Provider, opt check.Options) (r *check.Report, err error) {
	err = c.work("check", strings.Join(c.operands, " "), false, func(progress func(done, total int64)) (err error) {
		opt.Progress = progress
		r, err = check.Inspect(ctx, providers, opt)
		return err
	})
	if err != nil {
		return nil, failf("Can't check: %s", errorText(err))
	}
	return r, nil
}

// errFindings ends check with status 1; the report has said why.
var errFindings = errors.New("")
