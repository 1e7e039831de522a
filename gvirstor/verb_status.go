package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// statusOptions are those of status.
type statusOptions struct {
	all, geoms, script, exact, json, watch, trouble bool
	interval                                        int64  // seconds
	fields                                          string // of -o; empty: the table
}

const defaultInterval = 1

func statusCommand() *command {
	o := statusOptions{interval: defaultInterval}
	return &command{
		name:     "status",
		brief:    "Shows the state of volumes",
		also:     "state lvs vgs pvs ls df",
		operands: "[-agpsx] [-o field,...] [--json] [--watch [--interval seconds]] [name ...]",
		options: func(f *options) {
			f.flag(&o.all, "a", "all")
			f.flag(&o.geoms, "g", "geoms")
			f.flag(&o.exact, "p", "parseable")
			f.flag(&o.script, "s", "script")
			f.letterText(&o.fields, "o", "fields")
			f.flag(&o.trouble, "x", "trouble")
			f.flag(&o.json, "", "json")
			f.flag(&o.watch, "", "watch")
			f.number(&o.interval, "", "interval")
		},
		run: func(ctx context.Context, c *call) error { return c.status(ctx, &o) },
		about: `Shows the state of volumes and their components, of all volumes that the
daemon serves or of those named. On FreeBSD volumes that the kernel class runs
are shown, too ("kernel class"). What needs a hand follows, with what to type.

-a          show volumes that cannot be served, too (with -g)
-g          name volumes as such and not by their devices
-p          exact numbers for scripts, one volume a line, separated by tabs:
            name, device, virtual, physical, allocated, free and held bytes,
            free percent of the physical chunks, conditions or -
-s          for scripts: no header, every line complete
-o field,...
            only these of each volume, in columns, or with -p separated by tabs:
            the names of --json, such as name,state,free_chunks
-x          only what needs a hand, and exit status 1 if anything does
--json      everything, sizes in bytes
--watch     show it again every --interval seconds (1) and at every event,
            on a terminal in place`,
		example: "gvirstor status --watch mydata",
	}
}

func (c *call) status(ctx context.Context, o *statusOptions) error {
	if o.exact && o.json {
		return &usageError{"-p and --json exclude each other"}
	}
	if o.fields != "" && (o.json || o.watch) {
		return &usageError{"-o and --json or --watch exclude each other"}
	}
	if o.watch {
		switch {
		case o.trouble:
			return &usageError{"--watch and -x exclude each other"}
		case o.json:
			return &usageError{"--watch and --json exclude each other"}
		case o.interval < 1 || o.interval > 24*60*60:
			return &usageError{"--interval takes 1 to 86400 seconds"}
		}
		return c.watchStatus(ctx, o, time.Duration(o.interval)*time.Second)
	}
	if o.interval != defaultInterval {
		return &usageError{"--interval is for --watch"}
	}
	client, err := c.connectOrKernel(ctx)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
	}
	st, err := c.readStatus(ctx, client, o)
	if err != nil {
		return err
	}
	if o.trouble {
		st.Volumes = slices.DeleteFunc(st.Volumes, func(v control.VolumeStatus) bool { return v.Actions() == nil })
	}
	err = c.showOnce(st, o)
	if err == nil && o.trouble && len(st.Volumes)+len(st.Problems) > 0 {
		return errFindings
	}
	return err
}

// showOnce shows st in the form that o says.
func (c *call) showOnce(st control.Status, o *statusOptions) error {
	if o.json {
		return printJSON(c.stdout, st)
	}
	if o.fields != "" {
		return printFields(c.stdout, fieldStyle{o.fields, o.script || o.exact, o.exact}, st.Volumes)
	}
	printStatus(c.stdout, st, o)
	if o.script || o.exact {
		return nil
	}
	printLeases(c.stdout, st.Volumes)
	printActions(c.stdout, st.Volumes)
	c.warnProblems(st.Problems)
	if o.trouble && len(st.Volumes)+len(st.Problems) == 0 {
		fmt.Fprintln(c.stdout, "All volumes are well")
	}
	return nil
}

// printLeases says of which volumes this host has the lease, or had it until it ran out.
func printLeases(w io.Writer, volumes []control.VolumeStatus) {
	for _, v := range volumes {
		if v.Lease == nil {
			continue
		}
		text := "%s: leased to this host, %s, since %s%s\n"
		if v.Lease.LeftSeconds <= 0 {
			text = "%s: the lease of this host, %s, since %s, has run out%s\n"
		}
		fmt.Fprintf(w, text, ondisk.Printable(v.Name), ondisk.Printable(v.Lease.Host), v.Lease.Since.Local().Format(time.DateTime), unfenced(v.Lease))
	}
}

// unfenced says that nothing but the lease keeps another host off.
func unfenced(l *control.Lease) string {
	if l.Fencing {
		return ""
	}
	return ", not fenced: see LEASES in gvirstor(8)"
}

// readStatus asks for what status shows.
func (c *call) readStatus(ctx context.Context, client *control.Client, o *statusOptions) (control.Status, error) {
	st, err := c.overview(ctx, client)
	if err != nil {
		return st, err
	}
	return c.choose(st, o.all, func(name string) error { return failf("No such geom: %s.", name) })
}

// choose keeps of st what the operands name, in their order; everything when
// there are none. all counts in what cannot be served. unknown makes the error
// for a name that is not there.
func (c *call) choose(st control.Status, all bool, unknown func(string) error) (control.Status, error) {
	if len(c.operands) == 0 {
		return st, nil
	}
	chosen := st
	chosen.Volumes, chosen.Problems = []control.VolumeStatus{}, []control.Problem{}
	for _, name := range c.operands {
		found := false
		for _, v := range st.Volumes {
			if v.Is(name) {
				chosen.Volumes = append(chosen.Volumes, v)
				found = true
			}
		}
		for _, p := range st.Problems {
			if p.Volume != name {
				continue
			}
			chosen.Problems = append(chosen.Problems, p)
			if all {
				found = true
			} else if !found {
				c.warnProblems([]control.Problem{p})
			}
		}
		if !found {
			return st, unknown(name)
		}
	}
	return chosen, nil
}
