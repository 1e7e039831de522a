package main

import (
	"context"
)

func listCommand() *command {
	var o listOptions
	return &command{
		name:     "list",
		brief:    "Shows all about volumes",
		also:     "show get lvdisplay vgdisplay display",
		operands: "[-ap] [-o field,...] [-t type] [--json] " + whereUsage + " [name ...]",
		options: func(f *options) {
			f.flag(&o.all, "a", "all")
			f.flag(&o.exact, "p", "parseable")
			f.letterText(&o.fields, "o", "fields")
			f.flag(&o.json, "", "json")
			f.letterText(&o.kind, "t", "type")
			o.where.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.list(ctx, &o) },
		about: `Shows all there is to know of volumes, of all that the daemon serves or of
those named. On FreeBSD volumes that the kernel class runs are shown, too.

-a          show volumes that cannot be served, too
-p          exact numbers for scripts, one component a line, separated by tabs:
            volume, index, component, media size, sector size, chunk count,
            reserved, used (with the reserved) and free chunks, free percent
-o field,...
            only these of each component, in columns, or with -p separated by
            tabs: the names of --json, and volume
-t type     what is shown: volume, which it is if nothing is said, or snapshot;
            with -p one a line, separated by tabs: volume, snapshot, seconds
            since 1970, bytes of the volume then, that it refers to, that it
            alone has, and that were written since
--json      everything, sizes in bytes` + whereHelp,
		example: "gvirstor list mydata",
	}
}

func (c *call) list(ctx context.Context, o *listOptions) error {
	if o.exact && o.json {
		return &usageError{"-p and --json exclude each other"}
	}
	if o.fields != "" && o.json {
		return &usageError{"-o and --json exclude each other"}
	}
	switch o.kind {
	case "", "volume":
		if o.where.offline != "" {
			return &usageError{"--offline is for snapshots; dump and check show a stopped volume"}
		}
	case "snapshot":
		if o.fields != "" {
			return &usageError{"-o is for volumes"}
		}
		return c.listSnapshots(ctx, o)
	default:
		return &usageError{"-t takes volume or snapshot"}
	}
	client, err := c.connectOrKernel(ctx)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
	}
	st, err := c.overview(ctx, client)
	if err != nil {
		return err
	}
	st, err = c.choose(st, o.all, func(name string) error {
		return failf("Class 'VIRSTOR' does not have an instance named '%s'.", name)
	})
	if err != nil {
		return err
	}
	switch {
	case o.json:
		return printJSON(c.stdout, st)
	case o.fields != "":
		return printFields(c.stdout, fieldStyle{o.fields, o.exact, o.exact}, componentRows(st.Volumes))
	case o.exact:
		printExactList(c.stdout, st.Volumes)
	default:
		printList(c.stdout, st, o)
	}
	return nil
}
