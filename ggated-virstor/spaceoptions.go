package main

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
	levels  space.Thresholds
	command string
	timeout time.Duration
	reserve int64

	spares  []string // NAME=PROV
	spareAt int
	grow    []string // NAME=DIR:SIZE
	growMax string

	http      string
	httpHosts []string
}

func (o *spaceOptions) declare(f *pflag.FlagSet) {
	d := space.Defaults()
	o.levels = d
	f.Int64Var(&o.levels.FreeChunks, "alert-chunks", d.FreeChunks, "alert when the component being filled has `N` free chunks left (0: never)")
	f.IntVar(&o.levels.SpareComponents, "alert-components", d.SpareComponents, "alert when `N` components are left to fill (-1: never)")
	f.IntSliceVar(&o.levels.Percent, "alert-percent", d.Percent, "alert when so many `PERCENT` of the physical space are allocated")
	f.DurationVar(&o.levels.TimeToFull, "alert-time", d.TimeToFull, "alert when the volume will be full in less than `TIME` (0: never)")
	f.DurationVar(&o.levels.Window, "alert-window", d.Window, "predict that from the last `TIME`")
	f.StringVar(&o.command, "on-alert", "", "run `COMMAND` with sh(1) for each alert, the facts in its environment and as JSON on its standard input")
	f.DurationVar(&o.timeout, "on-alert-timeout", space.HookTimeout, "kill that command after `TIME`")
	f.Int64Var(&o.reserve, "reserve", 0, "keep `N` free chunks of each volume from ordinary writes, for 'gvirstor reserve --release'")
	f.StringArrayVar(&o.spares, "spare", nil, "`NAME=PROV`: a spare of the volume, labelled by 'gvirstor spare' (repeatable)")
	f.IntVar(&o.spareAt, "spare-at", 90, "add a spare when so many `PERCENT` of the physical space are allocated (0: never)")
	f.StringArrayVar(&o.grow, "grow", nil, "`NAME=DIR:SIZE`: without a spare, add a new file of that size (repeatable; with --gate through mdconfig)")
	f.StringVar(&o.growMax, "grow-max", "", "the files of --grow may have `SIZE` for each volume, all together")
	f.StringVar(&o.http, "http", "", "serve metrics and health on `HOST:PORT` (default host: loopback)")
	f.StringArrayVar(&o.httpHosts, "http-host", nil, "`NAME` by which --http is asked as well (repeatable)")
}

func (o *spaceOptions) check(w world) error {
	if err := o.levels.Check(); err != nil {
		return err
	}
	switch {
	case o.timeout <= 0:
		return fmt.Errorf("--on-alert-timeout %s: must be more than nothing", o.timeout)
	case o.reserve < 0:
		return fmt.Errorf("--reserve %d: must not be negative", o.reserve)
	case o.spareAt < 0 || o.spareAt > 100:
		return fmt.Errorf("--spare-at %d: from 0 to 100", o.spareAt)
	}
	if err := ownfile.CheckCommand(o.command); err != nil {
		return fmt.Errorf("--on-alert: %w", err)
	}
	for i, s := range o.spares {
		name, prov, ok := strings.Cut(s, "=")
		if !ok || name == "" || prov == "" {
			return fmt.Errorf("--spare %s: NAME=PROV is needed", s)
		}
		path, err := w.absolute(prov)
		if err != nil {
			return fmt.Errorf("--spare %s: %w", s, err)
		}
		o.spares[i] = name + "=" + path
	}
	_, err := o.grower(false)
	return err
}

// grower is nil without --grow. With attach its files become md(4) disks.
func (o *spaceOptions) grower(attach bool) (*space.FileGrower, error) {
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

// spareProviders are those of --spare, which may be components by now.
func (o *spaceOptions) spareProviders() []string {
	var ps []string
	for _, s := range o.spares {
		_, prov, _ := strings.Cut(s, "=")
		ps = append(ps, prov)
	}
	return ps
}

// runner is nil without --on-alert.
func (o *spaceOptions) runner() space.Runner {
	if o.command == "" {
		return nil
	}
	return space.Shell{Command: o.command}
}

// alerts and relief are what the daemon is told of this; run and g are who does
// what needs privilege.
func (o *spaceOptions) alerts(run space.Runner) space.AlertOptions {
	return space.AlertOptions{Levels: o.levels, Command: run, Timeout: o.timeout}
}

func (o *spaceOptions) relief(g space.Grower) space.SpareOptions {
	s := space.SpareOptions{Percent: o.spareAt, Grower: g, Spares: make(map[string]string), Margin: o.levels.Margin}
	for _, spare := range o.spares {
		name, prov, _ := strings.Cut(spare, "=")
		s.Spares[prov] = name
	}
	return s
}
