package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// meter is how far something is that this process does itself.
type meter struct{ done, total atomic.Int64 }

// set is given to what does the work.
func (m *meter) set(done, total int64) {
	m.done.Store(done)
	m.total.Store(total)
}

// work does what may take long, with a bar on a terminal once it does, and a
// line for each signal that asks. quiet draws no bar: the terminal is written to
// meanwhile. work calls do on another goroutine and waits for it.
func (c *call) work(kind, what string, quiet bool, do func(progress func(done, total int64)) error) error {
	signals, stop := progressSignals()
	defer stop()
	var m meter
	ended := make(chan error, 1)
	go func() { ended <- do(m.set) }()
	tick := time.NewTicker(jobPoll)
	defer tick.Stop()
	f := follower{call: c, signals: signals}
	drawn := false
	endBar := func() {
		if drawn {
			f.endBar()
			drawn = false
		}
	}
	start := time.Now()
	for {
		select {
		case err := <-ended:
			endBar()
			return err
		case <-signals:
			endBar()
			fmt.Fprintf(c.stderr, "%s of %s:%s\n", kind, what, progressText(m.status(kind, what, start)))
		case <-tick.C:
			if j := m.status(kind, what, start); !quiet && j.Total > 0 {
				f.bar(j)
				drawn = true
			}
		}
	}
}

// onStderr is c whose bars are drawn on the standard error output: the other one, or the
// standard input, has data.
func (c *call) onStderr() *call {
	world := *c.env
	world.raw, world.terminal = c.rawErr, c.errTerminal
	aside := *c
	aside.env = &world
	return &aside
}

// status is the meter as that of a job which began at start.
func (m *meter) status(kind, what string, start time.Time) control.JobStatus {
	j := control.JobStatus{Kind: kind, Volume: what, Done: m.done.Load(), Total: m.total.Load()}
	if t := time.Since(start); t > 0 {
		j.Rate = int64(float64(j.Done) / t.Seconds())
	}
	return j
}
