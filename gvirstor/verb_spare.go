package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func spareCommand() *command {
	var remove, force, json bool
	return &command{
		name:     "spare",
		brief:    "Labels, unlabels and lists spares",
		operands: "[-frv] [--json] name [prov ...]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&remove, "r", "remove")
			f.flag(&force, "f", "force")
			f.flag(&json, "", "json")
		},
		run: func(ctx context.Context, c *call) error {
			return c.spare(ctx, control.SpareRequest{Remove: remove, Force: force}, json)
		},
		about: `Labels providers as spares of a volume in service. The daemon holds them and
adds one by itself each time that space is short (its --spare-at). Those that
hold something, such as a file system, are named and refused. The label, in the
last sector, is written at once: after a restart the daemon takes as spares only
what has it, named by --spare. Without providers, lists the spares.

-f          take them whatever they hold: that is lost when they are added
-r          take the label off
--json      as an object: the list with sizes in bytes, or what became of it`,
		example: "gvirstor spare mydata ada7 ada8",
	}
}

// spareList are the spares of a volume in JSON.
type spareList struct {
	Volume string          `json:"volume"` // its name
	Spares []control.Spare `json:"spares"` // in the order in which they are used
}

func (c *call) spare(ctx context.Context, r control.SpareRequest, json bool) error {
	if len(c.operands) < 1 || r.Remove && len(c.operands) < 2 {
		return c.wrongNumber()
	}
	if json && len(c.operands) > 1 {
		return c.asResult(ctx, func(c *call) error { return c.spare(ctx, r, false) })
	}
	client, v, err := c.volumeOf(ctx, c.operands[0])
	if err != nil {
		return err
	}
	defer client.Close()
	if json {
		return printJSON(c.stdout, spareList{v.Name, append([]control.Spare{}, v.Spares...)})
	}
	if len(c.operands) == 1 {
		for _, s := range v.Spares {
			fmt.Fprintln(c.stdout, spareText(s))
		}
		return nil
	}
	if r.Providers, err = allForDaemon(c.operands[1:]); err != nil {
		return err
	}
	if !r.Remove {
		if err := c.mayTake(ctx, r.Providers, geomlib.DefaultRunDir()); err != nil {
			return err
		}
	}
	if err := client.Spare(ctx, v.Name, r); err != nil {
		return failf("Can't change the spares of %s: %w", v.Name, err)
	}
	return nil
}

// spareText is a spare in a line: its size, or why it is not used.
func spareText(s control.Spare) string {
	if s.Failed != "" {
		return fmt.Sprintf("%s  failed: %s", s.Name, s.Failed)
	}
	return fmt.Sprintf("%s  %s", s.Name, humanize(s.Size))
}
