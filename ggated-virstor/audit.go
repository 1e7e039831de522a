package main

import (
	"log/slog"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/peercred"
)

// longest is how much of a request is logged, in bytes.
const longest = 1 << 10

// noter logs what administrators ask for, and by whom, and keeps it beside the backups.
func noter(o *options.Options, log *slog.Logger) func(history.Deed) {
	dir := o.History()
	return func(d history.Deed) {
		by := "unknown"
		if d.UID != nil {
			by = peercred.Peer{UID: *d.UID, PID: d.PID}.String()
		}
		log := log.With("verb", d.Verb, "volume", d.Volume, "by", by, "request", string(d.Request[:min(len(d.Request), longest)]))
		if d.Error == "" {
			log.Info("done as asked")
		} else {
			log.Warn("not done as asked", "error", d.Error)
		}
		if dir == nil {
			return
		}
		if err := dir.Note(d); err != nil {
			log.Warn("what was done is only in the log", "error", err)
		}
	}
}
