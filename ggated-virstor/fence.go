package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// fencer runs the command of --fence-command.
type fencer struct {
	run     space.Runner
	timeout time.Duration
}

// fencerOf is that of o, or nil.
func fencerOf(o *options.Options) *fencer {
	run, timeout := o.Fencer()
	if run == nil {
		return nil
	}
	return &fencer{run, timeout}
}

// Fence implements daemon.Fencer.
func (f *fencer) Fence(ctx context.Context, v publish.Fenced) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	out, err := f.run.Run(ctx, v.Environment(), nil)
	if err != nil {
		return fmt.Errorf("--fence-command: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
