package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/verbs"
	"github.com/gvirstor/gvirstor/ondisk"
)

// stopped is a volume that nobody serves. Its verbs are done in this process: those of
// an open engine as the daemon does them, those that say who the volume is without one,
// and no others.
type stopped struct {
	verbs.Engine // opened for what changes or reads the volume
	others

	call       *call
	name       string
	components []string // their names
	where      *where
	parts      *parts // nil: it is not open
}

// others are the verbs that a stopped volume does not take.
type others struct{ control.Verbs }

func newStopped(c *call, name string, components []string, w *where) *stopped {
	refuse := control.NewClient(func(_ context.Context, asked control.Call) error {
		return control.Errorf(control.Invalid, "%s is stopped: %s is for a volume in service", name, asked.Verb)
	})
	return &stopped{others: others{refuse}, call: c, name: name, components: components, where: w}
}

// open opens the volume, and tells what it is.
func (s *stopped) open(ctx context.Context, p purpose) (v control.VolumeStatus, err error) {
	if s.parts, err = s.call.findStopped(ctx, s.name, s.components, p == toRead, s.where); err != nil {
		return v, err
	}
	if p == toIdentify {
		v.Name, v.ID = s.name, ondisk.VolumeID(s.parts.ID)
		return v, nil
	}
	vol, err := s.call.openNoOlder(s.parts.Assembly, virstor.Config{ReadOnly: p == toRead, ServeStranded: true, Log: s.call.warnings(), Lease: s.parts.lease}, s.where)
	if err != nil {
		s.parts.close()
		return v, failf("Can't open %s: %w", s.name, err)
	}
	for _, ig := range s.parts.Ignored {
		ig.Provider.Close()
	}
	s.Engine = verbs.Engine{Vol: vol, Host: s}
	return s.Volume(ctx, s.name)
}

// close lets go of the volume as it was found, notes where it is now, and tells if it
// could not be handed back.
func (s *stopped) close() error {
	if s.Vol == nil {
		s.parts.close()
		return nil
	}
	defer s.parts.lock.Close()
	end := s.Vol.Stop
	if s.parts.fenced { // found so: it is not this program's to hand back
		end = s.Vol.Close
	}
	err := end()
	var not *virstor.NotHandedBackError
	switch {
	case errors.As(err, &not) && not.Reasons == nil: // nothing was to be changed
	case errors.As(err, &not):
		s.call.warnFenced(s.name, "stays fenced", not.Reasons)
	case err != nil:
		return failf("Can't close %s: %w", s.name, err)
	}
	if generation, began := s.Vol.Generation(); generation == 0 {
		s.call.beginAnew(s.Vol.ID(), s.name, s.where.stateDir)
	} else if !s.Vol.ReadOnly() {
		s.call.raise(s.where.stateDir, s.Vol.ID(), state.Volume{ID: s.Vol.ID(), Name: s.name,
			Generation: generation, Began: began.UTC(), Providers: componentsOf(s.Vol)})
	}
	return nil
}

// Stop implements control.Verbs: it lifts the fence, as stop does of a volume in service.
func (s *stopped) Stop(context.Context, string, control.StopRequest) (control.StopResult, error) {
	if err := s.call.refuseOlder(s.parts, s.where); err != nil {
		return control.StopResult{}, err
	}
	err := virstor.FinishInterrupted(s.parts.Assembly, true, s.call.warnings())
	var not *virstor.NotHandedBackError
	switch {
	case errors.As(err, &not):
		return control.StopResult{Reasons: not.Reasons}, s.call.raiseFrom(s.where.stateDir, s.parts.ID, s.parts.Members)
	case err != nil:
		return control.StopResult{}, err
	}
	s.call.beginAnew(s.parts.ID, s.name, s.where.stateDir)
	return control.StopResult{HandedBack: true}, nil
}

// Identify implements control.Verbs.
func (s *stopped) Identify(ctx context.Context, _ string, r control.IdentifyRequest) (v control.VolumeStatus, err error) {
	if err := s.call.refuseTaken(ctx, r.Name); err != nil {
		return v, err
	}
	if r.DryRun {
		return s.Volume(ctx, s.name)
	}
	if err := s.call.refuseOlder(s.parts, s.where); err != nil {
		return v, err
	}
	was := ondisk.VolumeID(s.parts.ID)
	v.Name, v.ID = cmp.Or(r.Name, s.name), was
	newID := func() uint32 {
		for v.ID == was || v.ID == 0 {
			v.ID = ondisk.VolumeID(rand.Uint32())
		}
		return uint32(v.ID)
	}
	err = verbs.Identify(s.parts.Assembly, r, newID, !s.parts.fenced, s.call.warnings())
	var kept *virstor.NotHandedBackError
	if errors.As(err, &kept) {
		s.call.warnFenced(v.Name, "stays fenced", kept.Reasons)
		err = nil
	}
	if err != nil {
		return v, err
	}
	return v, s.call.raiseFrom(s.where.stateDir, uint32(was), s.parts.Members)
}

// Rollback implements control.Verbs.
func (s *stopped) Rollback(_ context.Context, name string, r control.RollbackRequest) (res control.RollbackResult, err error) {
	if _, own := control.SplitName(name); own != "" {
		return s.RollbackFurther(name, r)
	}
	if r.DryRun {
		return s.RollbackChanges(name, r)
	}
	if err := s.call.refuseOlder(s.parts, s.where); err != nil {
		return res, err
	}
	if err := virstor.Rollback(s.parts.Assembly, r.Snapshot, r.Force, s.call.warnings()); err != nil {
		return res, verbs.Classify(err)
	}
	return res, s.call.raiseFrom(s.where.stateDir, s.parts.ID, s.parts.Members)
}

// parts are the components of a stopped volume, and its lock.
type parts struct {
	*virstor.Assembly
	fenced bool           // any of them: fencing may have been interrupted
	lease  *virstor.Lease // or nil
	lock   io.Closer
	all    []io.Closer // lock and components
}

func (p *parts) close() {
	if p.lease != nil {
		_ = p.lease.Close() // a volume that was closed has said what is wrong
	}
	for _, c := range p.all {
		c.Close()
	}
}

// findStopped opens all components of a volume that nobody serves. The error of
// an incomplete one is in Assembly.Err, with where this host last saw what is missing.
func (c *call) findStopped(ctx context.Context, volume string, names []string, readOnly bool, w *where) (found *parts, err error) {
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
	var held []geomlib.Provider
	for _, name := range names {
		if err := notTwice(name, held); err != nil {
			return nil, failf("Can't open %s: %w", name, err)
		}
		prov, err := c.open(ctx, name, geomlib.OpenOptions{ReadOnly: readOnly})
		if errors.Is(err, geomlib.ErrLocked) {
			return nil, failf("Can't open %s: %s; %s", name, providerText(name, err),
				c.busyText(ctx, name, "another process of this host has it open: stop what that serves first"))
		}
		if err != nil {
			return nil, failf("Can't open %s: %s", name, providerText(name, err))
		}
		p.all, held = append(p.all, prov), append(held, prov)
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
	if err := shareLeased(held); err != nil {
		return nil, err
	}
	for i := range members {
		members[i].Provider = held[i]
	}
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return nil, failf("There are %d volumes called %s on these components, with the ids %08x and %08x; name those of one by --offline", len(as), volume, as[0].ID, as[1].ID)
	}
	p.Assembly = as[0]
	if p.lock, err = geomlib.LockVolume(w.runDir, p.ID); err != nil {
		return nil, failf("Can't open %s: %w", volume, err)
	}
	p.all = append(p.all, p.lock)
	if err := p.takeLease(ctx, readOnly, w); err != nil {
		return nil, failf("Can't open %s: %w", volume, err)
	}
	if p.Missing != nil {
		p.Err = fmt.Errorf("%w%s", p.Err, c.recall(p.ID, w.stateDir).LastSeen(p.Missing))
	}
	return p, nil
}

// takeLease takes the lease of components that other hosts can reach, or refuses what another
// host has, to who only reads, too.
func (p *parts) takeLease(ctx context.Context, readOnly bool, w *where) error {
	dead := func(owner virstor.LeaseOwner) error {
		return fmt.Errorf("%w: %v; if that is dead, ggated-virstor --takeover %s takes it over", virstor.ErrLeased, owner, ondisk.Printable(p.Name))
	}
	switch {
	case p.Err != nil:
		return nil
	case readOnly || !p.NeedsLease():
		var last uint64
		if m, ok := p.lock.(geomlib.LeaseMemory); ok {
			last = m.LastLease()
		}
		owner, leased, err := p.Leased(last)
		switch {
		case errors.Is(err, virstor.ErrNoLease), err == nil && (!leased || readOnly && w.forceOld):
			return nil
		case err == nil && readOnly:
			err = fmt.Errorf("%w: %v: what is read may be torn (--force-old)", virstor.ErrLeased, owner)
		case err == nil:
			err = dead(owner)
		}
		return err
	}
	var err error
	if p.lease, err = takeLease(ctx, p.Assembly, p.lock, false, dead); err != nil {
		return err
	}
	p.Assembly, err = p.Again()
	return err
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

// Open implements verbs.Host.
func (s *stopped) Open(name string, sectorSize int) (geomlib.Provider, error) {
	p, err := s.call.registry.Open(name, geomlib.OpenOptions{SectorSize: sectorSize})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %s", name, providerText(name, err))
	}
	return p, err
}

// MayAdd implements verbs.Host: nobody else has the volume.
func (s *stopped) MayAdd(context.Context, []geomlib.Provider) error { return nil }

// Drain implements verbs.Host: it has no clients.
func (s *stopped) Drain(context.Context) error { return nil }
