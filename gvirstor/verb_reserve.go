package main

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func reserveCommand() *command {
	var release, json bool
	return &command{
		name:     "reserve",
		brief:    "Keeps free chunks from ordinary writes",
		operands: "[-v] [--json] [--release] name [chunks | auto]",
		verbose:  true,
		options: func(f *options) {
			f.flag(&release, "", "release")
			f.flag(&json, "", "json")
		},
		run: func(ctx context.Context, c *call) error { return c.reserve(ctx, release, json) },
		about: `Keeps a number of free chunks from ordinary writes, for the time when the volume
is full: until the daemon ends, which begins with its --reserve. Without a
number, tells how many are kept; auto is 2 % of the chunks, at least 4 and at
most 64.

--release   keep none (or, with a number, so many fewer): writes that wait for
            space go on
--json      tell it, or what became of the change, as an object`,
		example: "gvirstor reserve --release mydata",
	}
}

// keptReserve is the reserve of a volume in JSON.
type keptReserve struct {
	Volume    string `json:"volume"`
	Chunks    int64  `json:"reserved_chunks"`
	ChunkSize int64  `json:"chunk_size"` // bytes
	Free      int64  `json:"free_chunks"`
}

func (c *call) reserve(ctx context.Context, release, json bool) error {
	if len(c.operands) < 1 || len(c.operands) > 2 {
		return c.wrongNumber()
	}
	if json && (release || len(c.operands) == 2) {
		return c.asResult(ctx, func(c *call) error { return c.reserve(ctx, release, false) })
	}
	client, v, err := c.volumeOf(ctx, c.operands[0])
	if err != nil {
		return err
	}
	defer client.Close()
	chunks, auto := int64(0), len(c.operands) == 2 && c.operands[1] == "auto"
	switch {
	case auto && release:
		return &usageError{"--release takes a number"}
	case auto:
	case len(c.operands) == 2:
		if chunks, err = control.ExpandNumber(c.operands[1]); err != nil {
			return failf("Invalid number of chunks: %s", c.operands[1])
		}
		if release {
			chunks = max(0, v.ReservedChunks-chunks)
		}
	case json:
		return printJSON(c.stdout, keptReserve{v.Name, v.ReservedChunks, v.ChunkSize, v.FreeChunks})
	case !release:
		fmt.Fprintf(c.stdout, "%d chunks (%s) of %s are kept in reserve\n", v.ReservedChunks, humanize(v.ReservedChunks*v.ChunkSize), v.Name)
		return nil
	}
	if err := client.Reserve(ctx, v.Name, control.ReserveRequest{Chunks: chunks, Auto: auto}); err != nil {
		return failf("Can't change the reserve of %s: %w", v.Name, err)
	}
	if c.verbose && auto {
		fmt.Fprintf(c.stdout, "The reserve of %s goes by its size, %d chunks before\n", v.Name, v.ReservedChunks)
	} else if c.verbose {
		fmt.Fprintf(c.stdout, "%d chunks of %s are kept in reserve, %d before\n", chunks, v.Name, v.ReservedChunks)
	}
	return nil
}
