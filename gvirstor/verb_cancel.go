package main

import (
	"context"
	"fmt"
)

func cancelCommand() *command {
	return &command{
		name:     "cancel",
		brief:    "Ends the long job of a volume",
		also:     "abort",
		operands: "[-v] name",
		verbose:  true,
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 {
				return c.wrongNumber()
			}
			client, v, err := c.volumeOf(ctx, c.operands[0])
			if err != nil {
				return err
			}
			defer client.Close()
			j, err := client.CancelJob(ctx, v.Name)
			if err != nil {
				return failf("Can't cancel the job of %s: %w", v.Name, err)
			}
			fmt.Fprintf(c.stdout, "%s of %s: %s\n", j.Kind, v.Name, j.State)
			return nil
		},
		about:   `Ends the long job of a volume after the chunk at hand. What it has done stays.`,
		example: "gvirstor cancel mydata",
	}
}
