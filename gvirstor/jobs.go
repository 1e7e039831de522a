package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

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
	b, err := c.find(ctx, volume, &o.where)
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
		return j, failf("Can't %s %s: %s", kind, volume, withoutAttempt(err.Error(), kind, volume))
	}
	return j, nil
}

// withoutAttempt is text without "KIND VOLUME: " before it, which whoever prints it
// says already.
func withoutAttempt(text, kind, volume string) string {
	return strings.TrimPrefix(text, kind+" "+volume+": ")
}

func evacuateCommand() *command {
	var o jobOptions
	return &command{
		name:     "evacuate",
		operands: "[-bnv] [--rate n] " + whereUsage + " name prov ...",
		verbose:  true,
		options:  o.declare,
		run: func(ctx context.Context, c *call) error {
			return c.evacuate(ctx, o)
		},
		about: `Moves everything off components, while the volume is used, and removes them.
Component 0 hands the allocation map on. Refused at once, with the bytes that
are missing, when the others have no room.
` + jobOptionsHelp,
		example: "gvirstor evacuate --rate 50m mydata ada4",
	}
}

func (c *call) evacuate(ctx context.Context, o jobOptions) error {
	if len(c.operands) < 2 {
		return c.wrongNumber()
	}
	provs, err := allForDaemon(c.operands[1:])
	if err != nil {
		return err
	}
	return c.startJob(ctx, c.operands[0], "evacuate", control.JobArgs{Providers: provs}, o)
}

func replaceCommand() *command {
	var o jobOptions
	return &command{
		name:     "replace",
		operands: "[-bnv] [--rate n] " + whereUsage + " name old new",
		verbose:  true,
		options:  o.declare,
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 3 {
				return c.wrongNumber()
			}
			provs, err := allForDaemon(c.operands[1:])
			if err != nil {
				return err
			}
			return c.startJob(ctx, c.operands[0], "replace", control.JobArgs{Providers: provs[:1], Target: provs[1]}, o)
		},
		about: `Adds a provider, moves everything from one component to it, and removes the
old one.
` + jobOptionsHelp,
		example: "gvirstor replace mydata ada4 ada9",
	}
}

// volumeJob is a verb that starts a job on one volume.
func volumeJob(name, about, example string) *command {
	var o jobOptions
	return &command{
		name:     name,
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

func packCommand() *command {
	return volumeJob("pack", `Fills holes between used chunks, component after component, so that stop can
hand the volume back to FreeBSD's kernel class.`, "gvirstor pack mydata")
}

func rebalanceCommand() *command {
	return volumeJob("rebalance", `Moves chunks until all components are equally full, such as after an add.`,
		"gvirstor rebalance mydata")
}

func reclaimCommand() *command {
	return volumeJob("reclaim", `Frees the chunks that hold nothing but zeros. What is written meanwhile stays.`,
		"gvirstor reclaim -n mydata")
}

func resizeCommand() *command {
	var o jobOptions
	var size int64
	var force bool
	return &command{
		name:     "resize",
		operands: "[-bfnv] [--rate n] " + whereUsage + " -s vir_size name",
		verbose:  true,
		options: func(f *options) {
			o.declare(f)
			f.number(&size, "s", "size")
			f.flag(&force, "f", "force")
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 {
				return c.wrongNumber()
			}
			if size == 0 {
				return failf("The new size is missing: -s vir_size, more than 0")
			}
			args := control.JobArgs{Size: size, Force: force}
			if force && !o.dryRun {
				// What is going to be lost is named before it is.
				dry := o
				dry.dryRun = true
				if err := c.startJob(ctx, c.operands[0], "resize", args, dry); err != nil {
					return err
				}
			}
			return c.startJob(ctx, c.operands[0], "resize", args, o)
		},
		about: `Makes a volume in use larger or smaller. The size is rounded as label rounds it.
It is made smaller only when nothing is allocated beyond the new end.

-s n        the new virtual size
-f          make it smaller even so: what lies beyond the new end is named, and
            lost
` + jobOptionsHelp,
		example: "gvirstor resize -s 4t mydata && growfs /dev/ggate0",
	}
}

func cancelCommand() *command {
	return &command{
		name:     "cancel",
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
