package main

import (
	"context"
	"log/slog"

	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
)

// run serves until ctx ends, in the process that o and this process's parent make it: see
// the package comment.
func run(ctx context.Context, o *options.Options) error {
	log := newLogger(o)
	err := startSoon(ctx, func(serving func()) error { return runAs(ctx, o, log, serving) })
	if err != nil && o.Syslog {
		log.Error("the daemon ends", "error", err)
	}
	return err
}

// runAs calls serving before it serves anybody.
func runAs(ctx context.Context, o *options.Options, log *slog.Logger, serving func()) error {
	if supervisor.IsWorker() {
		serving() // its supervisor sees to its end
		return work(o)
	}
	if err := o.CheckFolders(); err != nil {
		return err
	}
	if o.Supervise {
		return supervise(ctx, o, log, serving)
	}
	return serveHere(ctx, o, log, serving)
}
