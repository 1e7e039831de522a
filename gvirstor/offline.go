package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
	"github.com/gvirstor/gvirstor/ondisk"
)

// stopped is a volume that nobody serves, open in this process.
type stopped struct {
	vol    *virstor.Volume
	lock   io.Closer
	fenced bool // found so: it is not this program's to hand back
	// stateDir is where it is noted what this host served; empty: nowhere.
	stateDir string
}

// offlineJob does a job on a stopped volume.
func (c *call) offlineJob(ctx context.Context, volume, kind string, components []string, a control.JobArgs, o jobOptions, f follower) error {
	if o.background {
		return &usageError{"-b and --offline exclude each other"}
	}
	s, err := c.openStopped(ctx, volume, components, o.dryRun, &o.where)
	if err != nil {
		return err
	}
	f.later = "was interrupted; it goes on when the volume is next opened"
	if o.dryRun {
		f.later = "was interrupted"
	}
	return errors.Join(s.run(ctx, kind, a, &f), c.letGo(s))
}

// letGo closes a volume that was changed here, and tells if it could not be handed
// back.
func (c *call) letGo(s *stopped) error {
	defer s.lock.Close()
	kept, err := s.close()
	if err != nil {
		return failf("Can't close %s: %w", s.vol.Name(), err)
	}
	if kept != nil {
		c.warnFenced(s.vol.Name(), "stays fenced", kept)
	}
	if generation, began := s.vol.Generation(); generation == 0 {
		c.beginAnew(s.vol.ID(), s.vol.Name(), s.stateDir)
	} else if !s.vol.ReadOnly() {
		c.raise(s.stateDir, s.vol.ID(), state.Volume{ID: s.vol.ID(), Name: s.vol.Name(), Generation: generation, Began: began.UTC(), Providers: componentsOf(s.vol)})
	}
	return nil
}

// parts are the components of a stopped volume, and its lock.
type parts struct {
	*virstor.Assembly
	fenced bool // any of them: fencing may have been interrupted
	lock   io.Closer
	all    []io.Closer // lock and components
}

func (p *parts) close() {
	for _, c := range p.all {
		c.Close()
	}
}

// findStopped opens all components of a volume that nobody serves. The error of
// an incomplete one is in Assembly.Err.
func (c *call) findStopped(ctx context.Context, volume string, names []string, readOnly bool, runDir string) (found *parts, err error) {
	p := new(parts)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if names, err = allForDaemon(names); err != nil {
		return nil, err
	}
	var members []virstor.Member
	for _, name := range names {
		prov, err := c.open(ctx, name, geomlib.OpenOptions{ReadOnly: readOnly})
		if err != nil {
			return nil, failf("Can't open %s: %s", name, providerText(name, err))
		}
		p.all = append(p.all, prov)
		m, err := geomlib.ReadMetadata(prov)
		if err != nil {
			return nil, failf("Can't read metadata from %s: %s", name, metadataText(err))
		}
		if ondisk.Printable(m.Name) != volume {
			return nil, failf("%s is a component of %s, not of %s", name, ondisk.Printable(m.Name), volume)
		}
		p.fenced = p.fenced || m.Version != ondisk.Version
		members = append(members, virstor.Member{Provider: prov, Metadata: m})
	}
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return nil, failf("There are %d volumes called %s on these components, with the ids %08x and %08x; name those of one by --offline", len(as), volume, as[0].ID, as[1].ID)
	}
	p.Assembly = as[0]
	if p.lock, err = geomlib.LockVolume(runDir, p.ID); err != nil {
		return nil, failf("Can't open %s: %w", volume, err)
	}
	p.all = append(p.all, p.lock)
	return p, nil
}

// openStopped opens a volume of all the named components, for reading when
// nothing is to be done.
func (c *call) openStopped(ctx context.Context, volume string, components []string, readOnly bool, w *where) (*stopped, error) {
	p, err := c.findStopped(ctx, volume, components, readOnly, w.runDir)
	if err != nil {
		return nil, err
	}
	v, err := c.openNoOlder(p.Assembly, virstor.Config{ReadOnly: readOnly, Log: c.warnings()}, w)
	if err != nil {
		p.close()
		return nil, failf("Can't open %s: %w", volume, err)
	}
	for _, ig := range p.Ignored {
		ig.Provider.Close()
	}
	return &stopped{v, p.lock, p.fenced, w.stateDir}, nil
}

// handBack lifts the fence of a stopped volume, as stop does of one in service.
func (c *call) handBack(ctx context.Context, volume string, components []string, w *where) error {
	p, err := c.findStopped(ctx, volume, components, false, w.runDir)
	if err != nil {
		return err
	}
	defer p.close()
	if err := c.refuseOlder(p, w); err != nil {
		return failf("Can't stop %s: %w", volume, err)
	}
	err = virstor.Settle(p.Assembly, true, c.warnings())
	var not *virstor.NotHandedBackError
	switch {
	case errors.As(err, &not):
		c.warnFenced(volume, "stays fenced", not.Reasons)
	case err != nil:
		return failf("Can't stop %s: %w", volume, err)
	}
	if not != nil {
		return c.raiseFrom(w.stateDir, p.ID, p.Members)
	}
	c.beginAnew(p.ID, volume, w.stateDir)
	if c.verbose {
		fmt.Fprintf(c.stdout, handedBack, volume)
	}
	return nil
}

// openNoOlder opens a volume unless this host has served a later state of it.
func (c *call) openNoOlder(a *virstor.Assembly, cfg virstor.Config, w *where) (*virstor.Volume, error) {
	known := c.recall(a.ID, w.stateDir)
	cfg.MinGeneration, cfg.MinBegan, cfg.ForceOld = known.Generation, known.Began, w.forceOld
	v, err := virstor.Open(a, cfg)
	if errors.Is(err, virstor.ErrOldSet) {
		err = fmt.Errorf("%w (--force-old)", err)
	}
	return v, err
}

// refuseOlder refuses what openNoOlder does not open.
func (c *call) refuseOlder(p *parts, w *where) error {
	known := c.recall(p.ID, w.stateDir)
	p.Above = known.Generation
	if w.forceOld || p.Err != nil || p.Settled >= known.Generation {
		return nil
	}
	return fmt.Errorf("%w: generation %d of %s, this host has served %d of %s; what was written since would be given up (--force-old)", virstor.ErrOldSet,
		p.Settled, p.Began.UTC().Format(time.DateTime), known.Generation, known.Began.Format(time.DateTime))
}

// run does the job, after one that was interrupted if there is such.
func (s *stopped) run(ctx context.Context, kind string, a control.JobArgs, f *follower) error {
	if j, ok := s.vol.Job(); ok && j.State == virstor.JobRunning {
		f.warn("an interrupted " + j.Kind + " goes on first")
		if err := f.follow(ctx, s.verbs(), s.verbs().JobStatus(j)); err != nil {
			return err
		}
	}
	j, err := startOn(ctx, s.verbs(), s.vol.Name(), kind, a)
	if err != nil {
		return err
	}
	return f.follow(ctx, s.verbs(), j)
}

// close lets the volume go as it was found, but for its lock; kept tells why it cannot
// be handed back.
func (s *stopped) close() (kept []string, err error) {
	end := s.vol.Stop
	if s.fenced {
		end = s.vol.Close
	}
	err = end()
	var not *virstor.NotHandedBackError
	if errors.As(err, &not) {
		kept, err = not.Reasons, nil
	}
	return kept, err
}

// verbs are the verbs of the volume.
func (s *stopped) verbs() verbs.Volume { return verbs.Volume{Engine: s.vol, Host: s} }

// Open implements verbs.Host.
func (s *stopped) Open(name string, sectorSize int) (geomlib.Provider, error) {
	p, err := geomlib.Open(name, geomlib.OpenOptions{SectorSize: sectorSize})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %s", name, providerText(name, err))
	}
	return p, err
}

// MayAdd implements verbs.Host: nobody else has the volume.
func (s *stopped) MayAdd(context.Context, []geomlib.Provider) error { return nil }

// Drain implements verbs.Host: it has no clients.
func (s *stopped) Drain(context.Context) error { return nil }
