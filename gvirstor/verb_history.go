package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func historyCommand() *command {
	var json bool
	dir := backup.DefaultDir
	return &command{
		name:     "history",
		brief:    "Shows what was done to volumes, by whom and when",
		also:     "log audit",
		operands: "[--json] [--backup-dir dir] [name]",
		options: func(f *options) {
			f.flag(&json, "", "json")
			f.text(&dir, "backup-dir")
		},
		run: func(_ context.Context, c *call) error { return c.showHistory(dir, json) },
		about: `Shows what the daemon was asked to change of a volume and the further volumes of
its pool, or of any, by whom and when, the oldest first. The daemon keeps it
beside its backups, the newest two megabytes of it. What was done while no
daemon served is not in it.

--json       as an object
--backup-dir the daemon's folder of backups`,
		example: "gvirstor history mydata",
	}
}

func (c *call) showHistory(dir string, json bool) error {
	if len(c.operands) > 1 {
		return c.wrongNumber()
	}
	volume := ""
	if len(c.operands) == 1 {
		volume = c.operands[0]
	}
	if _, err := os.Stat(dir); err != nil {
		return failf("Can't read the history: %s: %s", dir, errorText(err))
	}
	deeds, err := history.Dir{Path: dir}.Read(volume)
	if err != nil {
		return failf("Can't %w", err)
	}
	if json {
		return printJSON(c.stdout, deedList{append([]history.Deed{}, deeds...)})
	}
	for _, d := range deeds {
		line := fmt.Sprintf("%s  %-10s  %s %s", d.Time.Local().Format(time.DateTime), askedBy(d), d.Verb, ondisk.Printable(d.Volume))
		if len(d.Request) > 0 && string(d.Request) != "{}" {
			line += "  " + string(d.Request)
		}
		if d.Error != "" {
			line += "  failed: " + oneLine(d.Error)
		}
		fmt.Fprintln(c.stdout, line)
	}
	return nil
}

// deedList is the history in JSON.
type deedList struct {
	Deeds []history.Deed `json:"deeds"` // the oldest first
}

// askedBy is who asked for a deed.
func askedBy(d history.Deed) string {
	if d.UID == nil {
		return "-"
	}
	id := strconv.FormatUint(uint64(*d.UID), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func eventsCommand() *command {
	var json bool
	return &command{
		name:     "events",
		brief:    "Shows what happens, as it happens",
		also:     "monitor watch follow",
		operands: "[--json] [name]",
		options: func(f *options) {
			f.flag(&json, "", "json")
		},
		run: func(ctx context.Context, c *call) error { return c.events(ctx, json) },
		about: `Shows what happens to a volume, or to any, until it is interrupted: alerts and
recoveries, components that come, go or fail, jobs that begin and end.

--json      an object a line`,
		example: "gvirstor events mydata",
	}
}

func (c *call) events(ctx context.Context, json bool) error {
	if len(c.operands) > 1 {
		return c.wrongNumber()
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	volume := ""
	if len(c.operands) == 1 {
		v, err := client.Volume(ctx, c.operands[0])
		if err != nil {
			return unknownVolume(ctx, client, c.operands[0])
		}
		volume = v.Name
	}
	stream, err := client.Events(ctx)
	if err != nil {
		return failf("Can't follow the events: %w", err)
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		switch {
		case ctx.Err() != nil:
			return nil // interrupted, which is how it ends
		case errors.Is(err, io.EOF):
			return failf("The daemon has ended")
		case err != nil:
			return failf("Can't follow the events: %w", err)
		case volume != "" && e.Volume != volume:
			continue
		}
		if err := c.printEvent(e, json); err != nil {
			return err
		}
	}
}

// printEvent prints one.
func (c *call) printEvent(e control.Event, asJSON bool) error {
	if asJSON {
		return printJSONLine(c.stdout, e)
	}
	fmt.Fprintf(c.stdout, "%s  %s  %s: %s\n", e.Time.Local().Format(time.DateTime), ondisk.Printable(e.Volume), e.Kind, oneLine(e.Text))
	return nil
}
