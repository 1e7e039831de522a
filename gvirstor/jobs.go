package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// jobOptions are the options of every verb that starts a long job.
type jobOptions struct {
	where

	rate       int64
	dryRun     bool
	background bool
}

func newJobOptions() jobOptions { return jobOptions{where: newWhere()} }

func (j *jobOptions) declare(o *options) {
	o.number(&j.rate, "", "rate")
	o.flag(&j.dryRun, "n", "dry-run")
	o.flag(&j.background, "b", "background")
	j.where.declare(o)
}

// jobOptionsHelp describes them.
const jobOptionsHelp = `
--rate n    move at most n bytes a second
-n          only tell what would be done
-b          do not wait; 'gvirstor status' shows how far it is` + whereHelp + `

Interrupted here, the job goes on in the daemon; 'gvirstor cancel' ends it. The
same verb goes on with what a cancelled job has left.`

// startJob starts a job and, unless told otherwise, waits for it with a bar. names
// are components that it concerns.
func (c *call) startJob(ctx context.Context, name, kind string, a control.JobArgs, o jobOptions) (err error) {
	volume, err := c.changer(ctx, name, o.where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, volume.close()) }()
	if o.background && !volume.mayLeave() {
		return failf("-b: %s is stopped, and there is no daemon that would go on", name)
	}
	if a.Providers, err = components(volume, a.Providers); err != nil {
		return err
	}
	if a.Target != "" {
		if a.Target, err = volume.component(a.Target); err != nil {
			return err
		}
	}
	a.Rate, a.DryRun = o.rate, o.dryRun
	args, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode the arguments of %s: %w", kind, err)
	}
	j, err := volume.StartJob(ctx, name, control.JobRequest{Kind: kind, Args: args})
	switch {
	case err != nil:
		return failf("Can't %s %s: %w", kind, name, err)
	case o.background && !o.dryRun:
		fmt.Fprintf(c.stdout, "%s of %s is under way\n", kind, name)
		return nil
	}
	return c.followJob(ctx, volume, j)
}

// jobPoll is how often a job is asked how far it is.
const jobPoll = 200 * time.Millisecond

// followJob waits for a job.
func (c *call) followJob(ctx context.Context, volume changer, j control.JobStatus) error {
	tick := time.NewTicker(jobPoll)
	defer tick.Stop()
	for j.State == control.JobRunning {
		c.bar(j)
		select {
		case <-ctx.Done():
			c.endBar()
			return volume.interrupt(j)
		case <-tick.C:
		}
		next, err := volume.Job(ctx, j.ID)
		if err != nil {
			c.endBar()
			return failf("Can't tell how far %s of %s is: %w", j.Kind, j.Volume, err)
		}
		j = next
	}
	c.endBar()
	if j.Result != "" {
		fmt.Fprintln(c.stdout, j.Result)
	}
	switch j.State {
	case control.JobFailed:
		return failf("Can't %s %s: %s", j.Kind, j.Volume, j.Error)
	case control.JobCancelled:
		return failf("%s of %s was cancelled", j.Kind, j.Volume)
	}
	return nil
}

// bar draws how far a job is, on a terminal.
func (c *call) bar(j control.JobStatus) {
	width, _, ok := c.terminal()
	if !ok {
		return
	}
	percent := control.Percent(j.Done, j.Total)
	text := fmt.Sprintf(" %3d%% %s of %s, %s/s", percent, humanize(j.Done), humanize(j.Total), humanize(j.Rate))
	cells := max(0, min(50, width-len(text)-len(j.Kind)-4))
	full := cells * percent / 100
	fmt.Fprintf(c.stdout, "\r%s [%s%s]%s\x1b[K", j.Kind, strings.Repeat("#", full), strings.Repeat(".", cells-full), text)
}

func (c *call) endBar() {
	if _, _, ok := c.terminal(); ok {
		fmt.Fprint(c.stdout, "\r\x1b[K")
	}
}

func evacuateCommand() *command {
	o := newJobOptions()
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
		return failf("Invalid number of arguments")
	}
	return c.startJob(ctx, c.operands[0], "evacuate", control.JobArgs{Providers: c.operands[1:]}, o)
}

func replaceCommand() *command {
	o := newJobOptions()
	return &command{
		name:     "replace",
		operands: "[-bnv] [--rate n] " + whereUsage + " name old new",
		verbose:  true,
		options:  o.declare,
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 3 {
				return failf("Invalid number of arguments")
			}
			return c.startJob(ctx, c.operands[0], "replace", control.JobArgs{Providers: c.operands[1:2], Target: c.operands[2]}, o)
		},
		about: `Adds a provider, moves everything from one component to it, and removes the
old one.
` + jobOptionsHelp,
		example: "gvirstor replace mydata ada4 ada9",
	}
}

// volumeJob is a verb that starts a job on one volume.
func volumeJob(name, about, example string) *command {
	o := newJobOptions()
	return &command{
		name:     name,
		operands: "[-bnv] [--rate n] " + whereUsage + " name",
		verbose:  true,
		options:  o.declare,
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 {
				return failf("Invalid number of arguments")
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
	o := newJobOptions()
	var size int64
	var force bool
	return &command{
		name:     "resize",
		operands: "[-fnv] -s vir_size " + whereUsage + " name",
		verbose:  true,
		options: func(f *options) {
			o.declare(f)
			f.number(&size, "s", "size")
			f.flag(&force, "f", "force")
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.operands) != 1 || size == 0 {
				return failf("Invalid number of arguments")
			}
			args := control.JobArgs{Size: size, Force: force}
			if force && !o.dryRun {
				// What is going to be lost is named before it is.
				if err := c.startJob(ctx, c.operands[0], "resize", args, jobOptions{where: o.where, dryRun: true}); err != nil {
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
				return failf("Invalid number of arguments")
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			v, err := client.Volume(ctx, c.operands[0])
			if err != nil {
				return unknownVolume(c.operands[0])
			}
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
