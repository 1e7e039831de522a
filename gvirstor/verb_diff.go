package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func diffCommand() *command {
	var w where
	var json bool
	return &command{
		name:     "diff",
		brief:    "Shows where a volume differs from a snapshot",
		operands: "[--json] " + whereUsage + " name@snap [name@snap | name]",
		options: func(f *options) {
			f.flag(&json, "", "json")
			w.declare(f)
		},
		run: func(ctx context.Context, c *call) error { return c.diff(ctx, &w, json) },
		about: `Shows which ranges of a volume, or of a later snapshot of it, have changed since
a snapshot, and how many bytes: offset, length, and whether there is data now or
a hole, which reads as zeros. It is known by whole chunks, of which a part may
be the same as before.

--json      the same as an object` + whereHelp,
		example: "gvirstor diff mydata@monday mydata@tuesday",
	}
}

// differences is what diff prints in JSON.
type differences struct {
	Volume string              `json:"volume"`
	From   string              `json:"from"`         // the older snapshot
	To     string              `json:"to,omitempty"` // the newer one; absent: the volume as it is
	Size   int64               `json:"size"`         // of what is newer, bytes
	Bytes  int64               `json:"bytes"`        // that the ranges have
	Ranges []control.DiffRange `json:"ranges"`       // in their order
}

// parseSnapshot takes apart name@snap.
func parseSnapshot(operand string) (volume, snapshot string, err error) {
	i := strings.LastIndex(operand, "@") // which a volume's name may have
	if i <= 0 {
		return "", "", failf("Invalid name of a snapshot: %s is not name@snap", ondisk.Printable(operand))
	}
	volume, snapshot = operand[:i], operand[i+1:]
	if err := ondisk.CheckMapName(snapshot); err != nil {
		return "", "", failf("Invalid name of a snapshot: %w", err)
	}
	return volume, snapshot, nil
}

// diffOperands are the volume, the older snapshot and the newer one, if it is one.
func (c *call) diffOperands() (volume, from, to string, err error) {
	if len(c.operands) < 1 || len(c.operands) > 2 {
		return "", "", "", c.wrongNumber()
	}
	if volume, from, err = parseSnapshot(c.operands[0]); err != nil || len(c.operands) == 1 || c.operands[1] == volume {
		return volume, from, "", err
	}
	other, to, err := parseSnapshot(c.operands[1])
	if err == nil && other != volume {
		err = failf("Can't compare %s with %s: they are of two volumes", ondisk.Printable(c.operands[0]), ondisk.Printable(c.operands[1]))
	}
	return volume, from, to, err
}

func (c *call) diff(ctx context.Context, w *where, json bool) error {
	volume, from, to, err := c.diffOperands()
	if err != nil {
		return err
	}
	return c.withPool(ctx, volume, w, toRead, func(b *backend) error {
		d := differences{Volume: volume, From: from, To: to, Ranges: []control.DiffRange{}}
		d.Size, err = allDifferences(ctx, b, volume, control.DiffRequest{From: from, To: to}, func(r control.DiffRange) error {
			d.Bytes += r.Length
			if i := len(d.Ranges) - 1; i >= 0 && d.Ranges[i].Hole == r.Hole && d.Ranges[i].Offset+d.Ranges[i].Length == r.Offset {
				d.Ranges[i].Length += r.Length // of two answers
			} else {
				d.Ranges = append(d.Ranges, r)
			}
			return nil
		})
		if err != nil {
			return failf("Can't compare %s: %w", volume, err)
		}
		if json {
			return printJSON(c.stdout, d)
		}
		for _, r := range d.Ranges {
			what := "data"
			if r.Hole {
				what = "hole"
			}
			fmt.Fprintf(c.stdout, "%14d %14d  %s\n", r.Offset, r.Length, what)
		}
		fmt.Fprintf(c.stdout, "%d bytes in %d ranges have changed\n", d.Bytes, len(d.Ranges))
		return nil
	})
}

// allDifferences calls emit for what differs, in order, from r.Offset on, and returns the
// size of what is newer.
func allDifferences(ctx context.Context, v control.Verbs, volume string, r control.DiffRequest, emit func(control.DiffRange) error) (size int64, err error) {
	var first control.Diff
	for begun := false; ; begun = true {
		d, err := v.Diff(ctx, volume, r)
		switch {
		case err != nil:
			return 0, err
		case !begun:
			first = d
		case d.FromID != first.FromID || d.ToID != first.ToID:
			return 0, control.Errorf(control.NotFound, "a snapshot was deleted meanwhile, and another one has its name")
		}
		for _, differs := range d.Ranges {
			if err := emit(differs); err != nil {
				return 0, err
			}
		}
		if d.Next >= d.Size || d.Next <= r.Offset {
			return d.Size, nil
		}
		r.Offset = d.Next
	}
}
