package main

import (
	"log/slog"
	"os"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
)

// wantsRings reports whether rings are to be used where the system has them.
func wantsRings(o *options.Options) bool { return o.Direct && !o.Shared && o.IOUring }

// newRings makes the rings that files and devices past the cache are served with, or
// returns nil: a thread waits for each request then. It tells which of the two it is.
// until is NewRings's.
func newRings(o *options.Options, until *os.File, log *slog.Logger) *geomlib.Rings {
	if !wantsRings(o) {
		return nil
	}
	rings, err := geomlib.NewRings(until)
	if err != nil {
		log.Info("without io_uring a thread waits for each request to a disk or file", "error", err)
		return nil
	}
	log.Info("disks and files are read and written with io_uring")
	return rings
}

// closeRings gives them back when all that was opened with them is closed.
func closeRings(rings *geomlib.Rings, log *slog.Logger) {
	if rings == nil {
		return
	}
	if err := rings.Close(); err != nil {
		log.Warn("what was begun is left to the system", "error", err)
	}
}
