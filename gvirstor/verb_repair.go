package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
)

// repairOptions are the options of repair.
type repairOptions struct {
	yes     bool
	save    string
	undo    string
	force   bool
	keep    string
	drop    string
	giveUp  string
	history string
	dryRun  bool
	partial bool
	json    bool
	others  otherHosts
	// stateDir is where it is noted what this host served; empty: nowhere.
	stateDir string
}

func repairCommand() *command {
	o := repairOptions{stateDir: state.DefaultFor(os.Geteuid())}
	return &command{
		name:     "repair",
		brief:    "Mends what check finds",
		also:     "fix",
		operands: "[-fnvy] [--json] [--save file] [--undo file] [--partial] [--keep v,...] [--drop v,...] [--give-up snap,...] [--history prov] " + otherHostsUsage + " [--state-dir dir] prov ...",
		verbose:  true,
		options: func(f *options) {
			f.flag(&o.yes, "y", "yes")
			f.flag(&o.dryRun, "n", "dry-run")
			f.flag(&o.force, "f", "force")
			f.flag(&o.json, "", "json")
			f.text(&o.save, "save")
			f.text(&o.undo, "undo")
			f.flag(&o.partial, "", "partial")
			f.text(&o.keep, "keep")
			f.text(&o.drop, "drop")
			f.text(&o.giveUp, "give-up")
			f.text(&o.history, "history")
			o.others.declare(f)
			f.text(&o.stateDir, "state-dir")
		},
		run: func(ctx context.Context, c *call) error { return c.repair(ctx, o) },
		about: `Mends what check finds and what can be mended without guessing, on all
components of a stopped volume. Without -y it only tells what it would do. What
only you can put right is told, too.

-y          do it; what is replaced is saved in a file first
-n          only tell (the default)
--json      tell it, or what became of it, as an object
--save f    that file (gvirstor-NAME-TIME.repair in the working folder)
--undo f    bring back what a repair replaced, with -y
--partial   with --undo: also from a file whose end is missing
-f          with --undo: even where something was changed since; with --history
            or --give-up, and -y: give up what the others hold, or the snapshots
--keep v    of several virtual chunks on one chunk, v keeps it
--drop v    the virtual chunk v is given up and reads as zeros
--give-up s damaged snapshots that are deleted, whose contents are lost
--history p of components that were written in two ways since they parted, or of
            different ages, those that belong with p are the volume` + otherHostsHelp + `
--state-dir folder of its notes of what this host served`,
		example: "gvirstor repair -y ada4 ada6",
	}
}

func (c *call) repair(ctx context.Context, o repairOptions) (err error) {
	if len(c.operands) == 0 {
		return c.tooFew()
	}
	if err := o.agree(); err != nil {
		return err
	}
	if o.json && (o.yes || o.undo != "") {
		return c.asResult(ctx, func(c *call) error { o.json = false; return c.repair(ctx, o) })
	}
	choices, err := o.choices()
	if err != nil {
		return err
	}
	providers, err := c.openToChange(ctx, c.operands)
	defer closeProviders(providers)
	if err != nil {
		return err
	}
	held, err := c.keepOthersOff(ctx, providers, o.others, o.yes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	if o.undo != "" {
		return c.undo(ctx, o, providers, held)
	}
	if err := c.passCaches(providers); err != nil {
		return err
	}
	history, err := c.history(o.history, providers)
	if err != nil {
		return err
	}
	r, err := c.inspect(ctx, providers, check.Options{History: history})
	if err != nil {
		return err
	}
	plans, err := repair.Make(r, choices)
	if err != nil {
		return failf("Can't plan: %w", err)
	}
	if err := c.printPlans(plans, o.json); err != nil {
		return err
	}
	refused := false
	for _, p := range plans {
		refused = refused || len(p.Refusals) > 0 || !p.Needed() && len(p.Left) > 0
		if !o.yes || o.dryRun || !p.Needed() || len(p.Refusals) > 0 {
			continue
		}
		if err := c.applyPlan(ctx, o, p, held); err != nil {
			return err
		}
	}
	switch {
	case refused:
		return failf("Not fully done (see above).")
	case len(plans) == 0 && !r.Clean():
		return failf("Nothing of what check finds can be mended; see `gvirstor check`.")
	}
	return nil
}

// planList is what repair would do, in JSON.
type planList struct {
	Plans []*repair.Plan `json:"plans"` // one a volume
}

func (c *call) printPlans(plans []*repair.Plan, json bool) error {
	if json {
		return printJSON(c.stdout, planList{append([]*repair.Plan{}, plans...)})
	}
	for _, p := range plans {
		if err := p.WriteText(c.stdout); err != nil {
			return fmt.Errorf("print the plan: %w", err)
		}
	}
	return nil
}

// applyPlan mends one volume, which nobody may serve meanwhile.
func (c *call) applyPlan(ctx context.Context, o repairOptions, p *repair.Plan, held *leases) error {
	if others := p.GivesUp(); len(others) > 0 && !o.force {
		return failf("Can't repair %s: what was written to %s is given up by that (-f)", p.Volume, strings.Join(printable(others), ", "))
	}
	if lost := p.LosesSnapshots(); len(lost) > 0 && !o.force {
		return failf("Can't repair %s: what only snapshots hold is given up by that: %s (-f)", p.Volume, strings.Join(printable(lost), ", "))
	}
	if !held.has(p.NumericID()) {
		lock, err := geomlib.LockVolume(o.others.runDir, p.NumericID())
		if err != nil {
			return failf("Can't repair %s: %w", p.Volume, err)
		}
		defer lock.Close()
	}
	path := o.save
	if path == "" {
		path = fmt.Sprintf("gvirstor-%s-%s.repair", p.Volume, time.Now().UTC().Format("20060102T150405Z"))
	}
	j, err := repair.CreateJournal(path, p, time.Now())
	if err != nil {
		return failf("Can't save what is replaced: %w", err)
	}
	p.Above = c.recall(p.NumericID(), o.stateDir).Generation
	if err := held.moveTo(p.Zero()); err != nil {
		return failf("Can't repair %s: %w", p.Volume, errors.Join(err, j.Close()))
	}
	res, err := repair.Apply(ctx, p, j, c.warnings())
	if err = errors.Join(err, j.Close()); err != nil {
		return failf("Can't repair %s: %w (gvirstor repair --undo %s takes back what was done, with -y)", p.Volume, err, path)
	}
	if err := c.raiseFrom(o.stateDir, p.NumericID(), res.Members); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s is repaired; what was replaced is in %s\n", p.Volume, path)
	if len(res.StaysFenced) > 0 {
		c.warn(fmt.Sprintf("warning: %s stays fenced from the kernel class: %s", p.Volume, strings.Join(res.StaysFenced, "; ")))
	}
	if res.Rivals != nil {
		return failf("%s cannot be served yet: %w", p.Volume, res.Rivals)
	}
	if !res.Report.Clean() {
		if err := res.Report.WriteText(c.stdout, c.verbose); err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
		return failf("Not fully done (see above).")
	}
	return nil
}

func (c *call) undo(ctx context.Context, o repairOptions, providers []geomlib.Provider, held *leases) error {
	f, err := ownfile.OpenRegular(o.undo)
	if err != nil {
		return failf("Can't undo: %w", err)
	}
	defer f.Close()
	res, err := repair.Undo(ctx, f, providers, repair.UndoOptions{Force: o.force, Partial: o.partial, DryRun: !o.yes, RunDir: o.others.runDir, Locked: held.has})
	if errors.Is(err, repair.ErrCut) {
		return failf("Can't undo: %s: %w; --partial takes back what it tells, which leaves the rest as it is if the file was cut", o.undo, err)
	}
	if err != nil {
		return failf("Can't undo: %w", err)
	}
	word, hint := "restored", ""
	if !o.yes {
		word, hint = "would be restored", " (-y does it)"
	}
	if res.Bytes == 0 {
		fmt.Fprintf(c.stdout, "%s: nothing to restore\n", res.Volume)
		return nil
	}
	fmt.Fprintf(c.stdout, "%s: %d bytes %s on %s%s\n", res.Volume, res.Bytes, word, strings.Join(res.Providers, " "), hint)
	return nil
}

// history is the provider that --history names, nil without it.
func (c *call) history(name string, providers []geomlib.Provider) (geomlib.Provider, error) {
	if name == "" {
		return nil, nil
	}
	for i, operand := range c.operands {
		if geomlib.Name(operand).Same(name) {
			return providers[i], nil
		}
	}
	return nil, failf("--history names %s, which is none of the providers given", name)
}

// passCaches makes what is read of the providers come from their media. What a
// cache believes after a failed flush would be mended, or taken for sound, in vain.
func (c *call) passCaches(providers []geomlib.Provider) error {
	var keep []string
	for _, p := range providers {
		switch err := geomlib.PassCache(p); {
		case errors.Is(err, geomlib.ErrNotSupported):
			keep = append(keep, p.Name())
		case err != nil:
			return failf("Can't flush the component %s: %w", p.Name(), err)
		}
	}
	if keep != nil {
		c.warn(fmt.Sprintf("warning: the system's cache of %s cannot be dropped: if a flush failed before, what is read may not be on the medium", strings.Join(keep, ", ")))
	}
	return nil
}

// agree refuses options that mean nothing together.
func (o *repairOptions) agree() error {
	switch {
	case o.yes && o.dryRun:
		return &usageError{"-y and -n exclude each other"}
	case o.undo == "" && o.partial:
		return &usageError{"--partial is for --undo"}
	case o.undo == "" && o.history+o.giveUp == "" && o.force:
		return &usageError{"-f is for --undo, --history and --give-up"}
	case o.undo != "" && o.keep+o.drop+o.giveUp+o.save+o.history != "":
		return &usageError{"--undo excludes --keep, --drop, --give-up, --history and --save"}
	}
	return nil
}

func (o *repairOptions) choices() (repair.Choices, error) {
	var c repair.Choices
	var err error
	if c.Keep, err = chunkList("keep", o.keep); err != nil {
		return c, err
	}
	if o.giveUp != "" {
		c.GiveUp = strings.Split(o.giveUp, ",")
	}
	c.Drop, err = chunkList("drop", o.drop)
	return c, err
}

// chunkList reads virtual chunks separated by commas.
func chunkList(option, s string) ([]uint64, error) {
	var list []uint64
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 64)
		if err != nil {
			return nil, failf("Invalid value for '%s' argument: %s is no virtual chunk", option, part)
		}
		list = append(list, n)
	}
	return list, nil
}
