package options

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// spaceOptions say what is watched of the space and what is done when it gets
// short.
type spaceOptions struct {
	levels       space.Thresholds
	alertCommand string
	alertTimeout time.Duration
	reserve      int64

	spares  []string // NAME=PROV
	spareAt int
	grow    []string // NAME=DIR:SIZE
	growMax string
}

// declareSpace makes the flags of spaceOptions.
func (o *spaceOptions) declareSpace(f *pflag.FlagSet) {
	d := space.Defaults()
	o.levels = d
	f.Int64Var(&o.levels.FreeChunks, "alert-chunks", d.FreeChunks, "alert when the component being filled has `N` free chunks left (0: never)")
	f.IntVar(&o.levels.SpareComponents, "alert-components", d.SpareComponents, "alert when `N` components are left to fill (-1: never)")
	f.IntSliceVar(&o.levels.Percent, "alert-percent", d.Percent, "alert when so many `PERCENT` of the physical space are allocated")
	f.DurationVar(&o.levels.TimeToFull, "alert-time", d.TimeToFull, "alert when the volume will be full in less than `TIME` (0: never)")
	f.DurationVar(&o.levels.Window, "alert-window", d.Window, "predict that from the last `TIME`")
	f.StringVar(&o.alertCommand, "on-alert", "", "run `COMMAND` with sh(1) for each alert, the facts in its environment and as JSON on its standard input")
	f.DurationVar(&o.alertTimeout, "on-alert-timeout", space.HookTimeout, "kill that command after `TIME`")
	f.Int64Var(&o.reserve, "reserve", 0, "keep `N` free chunks of each volume from ordinary writes, for 'gvirstor reserve --release'")
	f.StringArrayVar(&o.spares, "spare", nil, "`NAME=PROV`: a spare of the volume, labelled by 'gvirstor spare' (repeatable)")
	f.IntVar(&o.spareAt, "spare-at", 90, "add a spare when so many `PERCENT` of the physical space are allocated (0: never)")
	f.StringArrayVar(&o.grow, "grow", nil, "`NAME=DIR:SIZE`: without a spare, add a new file of that size (repeatable; with --gate through mdconfig)")
	f.StringVar(&o.growMax, "grow-max", "", "the files of --grow may have `SIZE` for each volume, all together")
}

// validateSpace is validate of what concerns space.
func (o *Options) validateSpace() error {
	if err := o.levels.Check(); err != nil {
		return err
	}
	switch {
	case o.alertTimeout <= 0:
		return fmt.Errorf("--on-alert-timeout %s: must be more than nothing", o.alertTimeout)
	case o.reserve < 0:
		return fmt.Errorf("--reserve %d: must not be negative", o.reserve)
	case o.spareAt < 0 || o.spareAt > 100:
		return fmt.Errorf("--spare-at %d: from 0 to 100", o.spareAt)
	}
	if err := ownfile.CheckCommand(o.alertCommand); err != nil {
		return fmt.Errorf("--on-alert: %w", err)
	}
	for _, s := range o.spares {
		if name, prov, ok := strings.Cut(s, "="); !ok || name == "" || prov == "" {
			return fmt.Errorf("--spare %s: NAME=PROV is needed", s)
		}
	}
	_, err := o.Grower(false)
	return err
}

// findSpares gives the providers of --spare their whole paths.
func (o *Options) findSpares() error {
	for i, s := range o.spares {
		name, prov, _ := strings.Cut(s, "=")
		path, err := o.world.Absolute(prov)
		if err != nil {
			return fmt.Errorf("--spare %s: %w", s, err)
		}
		o.spares[i] = name + "=" + path
	}
	return nil
}

// Grower makes the files of --grow; it is nil without. With attach its files become md(4) disks.
func (o *Options) Grower(attach bool) (*space.FileGrower, error) {
	if len(o.grow) == 0 {
		if o.growMax != "" {
			return nil, errors.New("--grow-max needs --grow")
		}
		return nil, nil
	}
	n, err := control.ExpandNumber(o.growMax)
	if err != nil || n <= 0 {
		return nil, fmt.Errorf("--grow needs --grow-max with a size such as 100g, not %q: without a limit a volume could fill the file system", o.growMax)
	}
	g := &space.FileGrower{Plans: make(map[string]space.Plan), Max: n}
	for _, s := range o.grow {
		name, p, err := space.ParsePlan(s, control.ExpandNumber)
		if err != nil {
			return nil, fmt.Errorf("--grow %w", err)
		}
		if _, twice := g.Plans[name]; twice {
			return nil, fmt.Errorf("--grow %s: there is one for %s already", s, name)
		}
		g.Plans[name] = p
	}
	if attach {
		g.Attach, g.Detach = space.Mdconfig, space.MdconfigDetach
	}
	return g, nil
}

// SpareProviders are those of --spare, which may be components by now.
func (o *Options) SpareProviders() []string {
	var ps []string
	for _, s := range o.spares {
		_, prov, _ := strings.Cut(s, "=")
		ps = append(ps, prov)
	}
	return ps
}

// Runner runs the command of --on-alert; it is nil without.
func (o *Options) Runner() space.Runner {
	if o.alertCommand == "" {
		return nil
	}
	return space.Shell{Command: o.alertCommand}
}

// Alerts are when and to whom alerts are told; run runs the command.
func (o *Options) Alerts(run space.Runner) space.AlertOptions {
	return space.AlertOptions{Levels: o.levels, Command: run, Timeout: o.alertTimeout}
}

// SpareOptions are what is added when space gets short; g makes files, or is nil.
func (o *Options) SpareOptions(g space.Grower) space.SpareOptions {
	s := space.SpareOptions{Percent: o.spareAt, Grower: g, Spares: make(map[string]string), Margin: o.levels.Margin}
	for _, spare := range o.spares {
		name, prov, _ := strings.Cut(spare, "=")
		s.Spares[prov] = name
	}
	return s
}
