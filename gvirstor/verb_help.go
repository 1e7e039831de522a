package main

import (
	"context"
	"fmt"
	"io"

	"github.com/gvirstor/gvirstor/ondisk"
)

func helpCommand() *command {
	return &command{
		name:     "help",
		brief:    "Lists the verbs, or tells how one is used",
		also:     "usage man",
		operands: "[verb ...]",
		run:      func(_ context.Context, c *call) error { return c.help() },
		about:    "Lists the verbs, or tells how those named are used.",
		example:  "gvirstor help label",
	}
}

func (c *call) help() error {
	if len(c.operands) == 0 {
		printVerbs(c.stdout)
		return nil
	}
	for i, name := range c.operands {
		cmd := findCommand(name)
		if cmd == nil {
			c.verb = ""
			return &usageError{unknownCommand(ondisk.Printable(name))}
		}
		if i > 0 {
			fmt.Fprintln(c.stdout)
		}
		printHelp(c.stdout, cmd)
	}
	return nil
}

func printHelp(w io.Writer, cmd *command) {
	about := cmd.about
	if cmd.tellsResult() {
		about += "\n\n--json tells what became of it as an object, see gvirstor-json(5)."
	}
	fmt.Fprintf(w, "usage: %s\n\n%s\n\nExample:\n    %s\n", cmd.usage(), about, cmd.example)
}

func versionCommand() *command {
	return &command{
		name:  "version",
		brief: "Tells the version of this program",
		run: func(_ context.Context, c *call) error {
			if len(c.operands) > 0 {
				return c.wrongNumber()
			}
			fmt.Fprintln(c.stdout, program, version)
			return nil
		},
		about:   "Tells the version of this program. `gvirstor status --json` tells the daemon's.",
		example: "gvirstor version",
	}
}
