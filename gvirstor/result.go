package main

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// result is what became of a verb that changes or plans something, in JSON.
type result struct {
	Verb     string   `json:"verb"`
	Operands []string `json:"operands"`
	Done     bool     `json:"done"`            // all that was asked for, or with -n told
	Error    string   `json:"error,omitempty"` // why not
	Said     []string `json:"said"`            // the lines that tell people the same
	Warnings []string `json:"warnings"`        // those of the standard error output
	// Volume is the one that the first operand names, afterwards, where a daemon serves it.
	Volume *control.VolumeStatus `json:"volume,omitempty"`
}

// asResult does run, and prints what became of it as an object in place of what run
// prints. A wrong use is told as ever.
func (c *call) asResult(ctx context.Context, run func(*call) error) error {
	var said, warned bytes.Buffer
	world := *c.env
	world.stdout, world.stderr = &said, &warned
	world.terminal = func() (int, int, bool) { return 0, 0, false }
	world.errTerminal = world.terminal
	quiet := *c
	quiet.env = &world
	err := run(&quiet)
	var wrong *usageError
	if errors.As(err, &wrong) {
		return err
	}
	r := result{Verb: c.verb, Operands: append([]string{}, c.operands...), Done: err == nil, Said: linesOf(&said), Warnings: linesOf(&warned)}
	if err != nil {
		r.Error = err.Error()
	}
	r.Volume = c.volumeAfter(ctx)
	if e := printJSON(c.stdout, r); e != nil {
		return e
	}
	if err != nil {
		return errFindings // which the object has told
	}
	return nil
}

// volumeAfter is the volume that the first operand names, or nil.
func (c *call) volumeAfter(ctx context.Context) *control.VolumeStatus {
	if len(c.operands) == 0 {
		return nil
	}
	client, err := c.reach()
	if err != nil {
		return nil
	}
	defer client.Close()
	name := c.operands[0]
	v, err := client.Volume(ctx, name)
	if i := strings.LastIndex(name, "@"); err != nil && i > 0 { // of a snapshot
		v, err = client.Volume(ctx, name[:i])
	}
	if err != nil {
		return nil
	}
	return &v
}

// linesOf are the lines of what was printed, as people may be shown them.
func linesOf(b *bytes.Buffer) []string {
	lines := []string{}
	for line := range strings.Lines(b.String()) {
		lines = append(lines, ondisk.PrintableText(strings.TrimSuffix(line, "\n")))
	}
	return lines
}
