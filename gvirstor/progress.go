package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// progressSignals are those that ask how far a job is, until stop.
func progressSignals() (ch <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, tellSignals...)
	return c, func() { signal.Stop(c) }
}

// follower waits for a job.
type follower struct {
	*call
	signals <-chan os.Signal
	later   string // what becomes of the job when this is interrupted
}

// jobPoll is how often a job is asked how far it is.
const jobPoll = 200 * time.Millisecond

// follow waits for a job, with a bar on a terminal and a line for each signal.
func (f *follower) follow(ctx context.Context, v control.Verbs, j control.JobStatus) error {
	tick := time.NewTicker(jobPoll)
	defer tick.Stop()
	for j.State == control.JobRunning {
		f.bar(j)
		tell := false
		select {
		case <-ctx.Done():
			f.endBar()
			return failf("%s of %s %s", j.Kind, j.Volume, f.later)
		case <-f.signals:
			tell = true
		case <-tick.C:
		}
		next, err := v.Job(ctx, j.ID)
		if err != nil {
			f.endBar()
			return failf("Can't tell how far %s of %s is: %w", j.Kind, j.Volume, err)
		}
		j = next
		if tell {
			f.endBar()
			fmt.Fprintf(f.stderr, "%s of %s:%s\n", j.Kind, j.Volume, progressText(j))
		}
	}
	f.endBar()
	if j.Result != "" {
		fmt.Fprintln(f.stdout, j.Result)
	}
	switch j.State {
	case control.JobFailed:
		return failf("Can't %s %s: %s", j.Kind, j.Volume, j.Error)
	case control.JobCancelled:
		return failf("%s of %s was cancelled", j.Kind, j.Volume)
	}
	return nil
}

// progressText is how far a job is, and when it will be done at that rate.
func progressText(j control.JobStatus) string {
	text := fmt.Sprintf(" %3d%% %s of %s, %s/s", min(100, control.Percent(j.Done, j.Total)), humanize(j.Done), humanize(j.Total), humanize(j.Rate))
	if left := j.Total - j.Done; left > 0 && j.Rate > 0 {
		text += fmt.Sprintf(", %s left", (time.Duration(left/j.Rate)*time.Second + time.Second).String())
	}
	return text
}

// unknownWidth is taken for that of a terminal which does not tell.
const unknownWidth = 80

// bar draws how far a job is, on a terminal.
func (f *follower) bar(j control.JobStatus) {
	width, _, ok := f.terminal()
	if !ok {
		return
	}
	if width == 0 {
		width = unknownWidth
	}
	text := progressText(j)
	cells := max(0, min(50, width-len(text)-len(j.Kind)-4))
	full := cells * min(100, control.Percent(j.Done, j.Total)) / 100
	fmt.Fprintf(f.screen(), "\r%s [%s%s]%s%s", j.Kind, strings.Repeat("#", full), strings.Repeat(".", cells-full), text, clearLine)
}

func (f *follower) endBar() {
	if _, _, ok := f.terminal(); ok {
		fmt.Fprint(f.screen(), "\r"+clearLine)
	}
}
