package main

import (
	"context"
	"fmt"
	"io"
)

func helpCommand() *command {
	return &command{
		name:     "help",
		operands: "[verb ...]",
		run:      func(_ context.Context, c *call) error { return c.help() },
		about:    "Tells how verbs are used; without one, prints the usage of all.",
		example:  "gvirstor help label",
	}
}

// help without operands is the original's: the usage, and failure.
func (c *call) help() error {
	if len(c.operands) == 0 {
		return &usageError{}
	}
	for i, name := range c.operands {
		cmd := findCommand(name)
		if cmd == nil {
			return &usageError{unknownCommand(name)}
		}
		if i > 0 {
			fmt.Fprintln(c.stdout)
		}
		printHelp(c.stdout, cmd)
	}
	return nil
}

func printHelp(w io.Writer, cmd *command) {
	fmt.Fprintf(w, "usage: %s\n\n%s\n\nExample:\n    %s\n", cmd.usage(), cmd.about, cmd.example)
}
