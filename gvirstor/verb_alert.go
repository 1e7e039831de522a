package main

import (
	"context"
	"fmt"
)

func alertCommand() *command {
	var test, json bool
	return &command{
		name:     "alert",
		brief:    "Tests whether alerts arrive",
		operands: "[--json] --test name",
		options: func(f *options) {
			f.flag(&test, "", "test")
			f.flag(&json, "", "json")
		},
		run: func(ctx context.Context, c *call) error {
			if !test || len(c.operands) != 1 {
				return c.wrongNumber()
			}
			return c.testAlert(ctx, c.operands[0], json)
		},
		about: `Sends an alert that means nothing through every channel that alerts of the
volume take (log, events, metrics, the daemon's --on-alert command), and tells
what became of it. It fails when one of them does.

--json      as an object`,
		example: "gvirstor alert --test mydata",
	}
}

func (c *call) testAlert(ctx context.Context, name string, json bool) error {
	client, volume, err := c.volumeOf(ctx, name)
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.TestAlert(ctx, volume.Name)
	if err != nil {
		return failf("Can't send a test alert of %s: %w", name, err)
	}
	if json {
		if err := printJSON(c.stdout, r); err != nil {
			return err
		}
	}
	failed := false
	for _, ch := range r.Channels {
		state := "ok"
		if ch.Failed {
			state, failed = "failed", true
		}
		if !json {
			fmt.Fprintf(c.stdout, "%8s  %-6s  %s\n", ch.Name, state, ch.Result)
		}
	}
	if failed {
		return failf("Not fully done (a channel failed).")
	}
	return nil
}
