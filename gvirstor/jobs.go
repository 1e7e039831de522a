package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// jobOptions are the options of every verb that starts a long job.
type jobOptions struct {
	where

	rate       int64
	dryRun     bool
	background bool
}

func (j *jobOptions) declare(o *options) {
	j.where.declare(o)
	o.number(&j.rate, "", "rate")
	o.flag(&j.dryRun, "n", "dry-run")
	o.flag(&j.background, "b", "background")
}

// jobOptionsHelp describes them.
const jobOptionsHelp = `
--rate n    move at most n bytes a second
-n          only tell what would be done
-b          do not wait; 'gvirstor status' shows how far it is` + whereHelp + `

A terminal shows a bar; SIGINFO (control-T) or SIGUSR1 tell how far it is.
Interrupted here, the job goes on in the daemon; 'gvirstor cancel' ends it. The
same verb goes on with what a cancelled job has left.`

// startJob starts a job and, unless told otherwise, waits for it with a bar.
func (c *call) startJob(ctx context.Context, volume, kind string, a control.JobArgs, o jobOptions) error {
	signals, stop := progressSignals()
	defer stop()
	a.Rate, a.DryRun = o.rate, o.dryRun
	b, err := c.findBackend(ctx, volume, &o.where)
	if err != nil {
		return err
	}
	f := follower{call: c, signals: signals, later: "goes on in the daemon"}
	p := toChange
	switch {
	case b.stopped == nil:
	case o.background:
		return &usageError{"-b and --offline exclude each other"}
	case o.dryRun:
		p, f.later = toRead, "was interrupted"
	default:
		f.later = "was interrupted; it goes on when the volume is next opened"
	}
	return b.use(ctx, p, func(b *backend) error {
		if err := f.followInterrupted(ctx, b, volume); err != nil {
			return err
		}
		j, err := startOn(ctx, b, volume, kind, a)
		switch {
		case err != nil:
			return err
		case o.background && !o.dryRun:
			fmt.Fprintf(c.stdout, "%s of %s is under way\n", kind, volume)
			return nil
		}
		return f.follow(ctx, b, j)
	})
}

// followInterrupted waits for the job that a stopped volume goes on with as it is opened.
func (f *follower) followInterrupted(ctx context.Context, b *backend, volume string) error {
	if b.stopped == nil {
		return nil
	}
	j, err := b.Job(ctx, volume)
	if err != nil || j.State != control.JobRunning {
		return nil
	}
	f.warn("an interrupted " + j.Kind + " goes on first")
	return f.follow(ctx, b, j)
}

// startOn starts a job.
func startOn(ctx context.Context, v control.Verbs, volume, kind string, a control.JobArgs) (control.JobStatus, error) {
	args, err := json.Marshal(a)
	if err != nil {
		return control.JobStatus{}, fmt.Errorf("encode the arguments of %s: %w", kind, err)
	}
	j, err := v.StartJob(ctx, volume, control.JobRequest{Kind: kind, Args: args})
	switch {
	case err != nil && control.KindOf(err) == control.NotFound:
		return j, unknown(volume, false)
	case err != nil:
		return j, failf("Can't %s %s: %w", kind, volume, err)
	}
	return j, nil
}

// volumeJob is a verb that starts a job on one volume.
func volumeJob(name, brief, also, about, example string) *command {
	var o jobOptions
	return &command{
		name:     name,
		brief:    brief,
		also:     also,
		operands: "[-bnv] [--rate n] " + whereUsage + " name",
		verbose:  true,
		options:  o.declare,
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 {
				return c.wrongNumber()
			}
			return c.startJob(ctx, c.operands[0], name, control.JobArgs{}, o)
		},
		about:   about + "\n" + jobOptionsHelp,
		example: example,
	}
}
