package options

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
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

	spares  []spare
	spareAt int
	grow    []growth
	growMax int64 // bytes; 0: none was said
}

// spare is one of --spare.
type spare struct{ volume, provider string }

// readSpare reads NAME=PROV.
func readSpare(text string) (spare, error) {
	name, prov, ok := strings.Cut(text, "=")
	if !ok || name == "" || prov == "" {
		return spare{}, fmt.Errorf("--spare %s: NAME=PROV is needed", text)
	}
	return spare{name, prov}, nil
}

// growth is one of --grow.
type growth struct {
	volume string
	plan   space.Plan
}

// readGrowth reads NAME=DIR:SIZE. A volume has one.
func (o *spaceOptions) readGrowth(text string) (growth, error) {
	name, plan, err := space.ParsePlan(text, control.ExpandNumber)
	if err != nil {
		return growth{}, fmt.Errorf("--grow %w", err)
	}
	if slices.ContainsFunc(o.grow, func(g growth) bool { return g.volume == name }) {
		return growth{}, fmt.Errorf("--grow %s: there is one for %s already", text, name)
	}
	return growth{name, plan}, nil
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
	o.reserve = virstor.ReserveAuto
	f.TextVar(&reserve{&o.reserve}, "reserve", reserve{&o.reserve}, "keep `auto|N` free chunks of each volume from ordinary writes, for 'gvirstor reserve --release' (auto: 2 %, 4 to 64)")
	listVar(f, &o.spares, "spare", readSpare, "`NAME=PROV`: a spare of the volume, labelled by 'gvirstor spare' (repeatable)")
	f.IntVar(&o.spareAt, "spare-at", 90, "add a spare when so many `PERCENT` of the physical space are allocated (0: never)")
	listVar(f, &o.grow, "grow", o.readGrowth, "`NAME=DIR:SIZE`: without a spare, add a new file of that size (repeatable; with --gate through mdconfig)")
	sizeVar(f, &o.growMax, "grow-max", 0, "the files of --grow may have `SIZE` for each volume, all together")
}

// boundSpace is bound of spaceOptions.
func (o *spaceOptions) boundSpace(f *pflag.FlagSet) {
	bound(f, "on-alert-timeout", &o.alertTimeout, func(d time.Duration) bool { return d > 0 }, "must be more than nothing")
	bound(f, "spare-at", &o.spareAt, func(n int) bool { return 0 <= n && n <= 100 }, "from 0 to 100")
}

// validateSpace is validate of what concerns space.
func (o *Options) validateSpace() error {
	if err := o.levels.Check(); err != nil {
		return err
	}
	if err := ownfile.CheckCommand(o.alertCommand); err != nil {
		return fmt.Errorf("--on-alert: %w", err)
	}
	switch {
	case len(o.grow) == 0 && o.growMax > 0:
		return errors.New("--grow-max needs --grow")
	case len(o.grow) > 0 && o.growMax == 0:
		return errors.New("--grow needs --grow-max with a size such as 100g: without a limit a volume could fill the file system")
	}
	return nil
}

// findSpares gives the providers of --spare their whole paths.
func (o *Options) findSpares() error {
	for i, s := range o.spares {
		path, err := o.world.Absolute(s.provider)
		if err != nil {
			return fmt.Errorf("--spare of %s: %w", s.volume, err)
		}
		o.spares[i].provider = path
	}
	return nil
}

// Grower makes the files of --grow; it is nil without. With attach its files become md(4) disks.
func (o *Options) Grower(attach bool) *space.FileGrower {
	if len(o.grow) == 0 {
		return nil
	}
	g := &space.FileGrower{Plans: make(map[string]space.Plan), Max: o.growMax}
	for _, one := range o.grow {
		g.Plans[one.volume] = one.plan
	}
	if attach {
		g.Attach, g.Detach = space.Mdconfig, space.MdconfigDetach
	}
	return g
}

// SpareProviders are those of --spare, which may be components by now.
func (o *Options) SpareProviders() []string {
	var ps []string
	for _, s := range o.spares {
		ps = append(ps, s.provider)
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
		s.Spares[spare.provider] = spare.volume
	}
	return s
}
