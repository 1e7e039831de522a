package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/alert"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Grower makes providers for volumes that run out of space. A supervisor may
// stand behind it.
type Grower interface {
	// Has reports whether the volume may grow at all.
	Has(volume string) bool
	Grow(ctx context.Context, volume string) (provider string, err error)
	// Undo removes what Grow made and what could not be added.
	Undo(ctx context.Context, volume, provider string) error
}

// SpaceOptions say what the daemon does itself when space gets short.
type SpaceOptions struct {
	// Percent of the physical space that must be allocated; 0: never.
	Percent int
	Grower  Grower // or nil
	// Spares tells of which volumes providers are expected to be spares.
	Spares map[string]string
	// Margin is by how many percent points less must be allocated until space is
	// no longer taken to be short.
	Margin int
}

// explain is why a provider that is expected to be a spare is none.
func (o SpaceOptions) explain(name string, err error) error {
	volume, expected := o.Spares[name]
	if expected && errors.Is(err, geomlib.ErrNoMetadata) {
		return fmt.Errorf("%s is no spare of %s: `gvirstor spare %s %s` makes it one", name, volume, volume, name)
	}
	if spare := (*spareError)(nil); expected && errors.As(err, &spare) && spare.label.Name != volume {
		return fmt.Errorf("%s is a spare of %s, not of %s", name, ondisk.Printable(spare.label.Name), volume)
	}
	return err
}

// relief adds spares and grown files to one volume. What it adds it adds on a
// goroutine of its own.
type relief struct {
	d     *Daemon
	s     *served
	short chan struct{} // capacity 1
	task  *publish.Task

	// using is held while a spare is added or taken away.
	using sync.Mutex

	mu      sync.Mutex
	spares  []*spare // in the order in which they are used
	added   uint64
	failed  uint64
	out     bool      // it was told that nothing is left
	noGrow  error     // why growing failed
	retryAt time.Time // when growing, and spares that failed, are tried again
}

// spare is a provider that is labelled for the volume and held open, or what
// failed of one.
type spare struct {
	name string
	p    geomlib.Provider // nil once it failed
	err  error
	told string // the reason that was last told of
}

func newRelief(d *Daemon, s *served) *relief {
	return &relief{d: d, s: s, short: make(chan struct{}, 1)}
}

// start opens the spares of those names, and then waits until space is short.
func (r *relief) start(names []string) {
	r.task = publish.StartTask(func(ctx context.Context) {
		for _, name := range names {
			if _, err := r.open(name, 0); err != nil {
				r.fail(&spare{name: name}, err)
			}
		}
		r.s.sentry.look()
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.short:
				r.relieve(ctx)
			}
		}
	})
}

func (r *relief) stop(ctx context.Context) {
	if r.task == nil {
		return
	}
	r.task.Stop(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sp := range r.spares {
		r.closeLocked(sp)
	}
	r.spares = nil
}

// ready is how many spares there are, those that failed included.
func (r *relief) ready() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.spares)
}

// closeLocked closes a spare that is not used; r.mu is held.
func (r *relief) closeLocked(sp *spare) {
	if sp.p == nil {
		return
	}
	if err := sp.p.Close(); err != nil {
		r.d.log.Warn("a spare could not be closed", "provider", sp.name, "error", err)
	}
	sp.p = nil
}

// consider has the goroutine add something if space is short.
func (r *relief) consider(s *alert.Snapshot) {
	o := r.d.space()
	short := o.Percent > 0 && s.Above(o.Percent)
	r.mu.Lock()
	if !short && !s.Above(max(1, o.Percent-o.Margin)) {
		r.out, r.noGrow, r.retryAt = false, nil, time.Time{}
	}
	r.mu.Unlock()
	// What is added to a degraded volume could not be allocated either.
	if !short || r.s.vol.ReadOnly() || !s.Writable || s.Degraded {
		return
	}
	select {
	case r.short <- struct{}{}:
	default:
	}
}

// relieve adds one provider; the look that follows decides whether that is
// enough.
func (r *relief) relieve(ctx context.Context) {
	shot := snapshot(r.s.vol.Status())
	if !shot.Above(r.d.space().Percent) {
		return
	}
	if r.useSpare(ctx) || ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	wait := time.Now().Before(r.retryAt)
	if !wait {
		r.retryAt = time.Now().Add(reliefRetry)
	}
	r.mu.Unlock()
	if wait {
		return
	}
	r.reopen()
	if !r.useSpare(ctx) {
		r.grow(ctx)
	}
}

// reliefRetry is how long what failed is not tried again.
const reliefRetry = time.Minute

// reopen opens the spares that failed: what kept one from being used, such as a
// disk that was away, may have passed.
func (r *relief) reopen() {
	r.using.Lock()
	defer r.using.Unlock()
	r.mu.Lock()
	var failed []*spare
	for _, sp := range r.spares {
		if sp.err != nil {
			failed = append(failed, sp)
		}
	}
	r.mu.Unlock()
	for _, sp := range failed {
		if _, err := r.open(sp.name, 0); err != nil {
			r.fail(&spare{name: sp.name}, err)
		}
	}
}

// useSpare adds the first spare that can be, and names those that cannot.
func (r *relief) useSpare(ctx context.Context) bool {
	r.using.Lock()
	defer r.using.Unlock()
	for ctx.Err() == nil {
		sp := r.next()
		if sp == nil {
			return false
		}
		if err := r.use(ctx, sp); err != nil {
			r.fail(sp, err)
			continue
		}
		r.drop(sp)
		r.tellAdded(sp.name, "spare")
		return true
	}
	return false
}

// use makes a spare a component.
func (r *relief) use(ctx context.Context, sp *spare) error {
	if _, err := r.check(sp.p); err != nil {
		return err // somebody changed it meanwhile
	}
	return r.add(ctx, sp.p)
}

// add makes an open provider a component; then the volume owns it.
func (r *relief) add(ctx context.Context, p geomlib.Provider) error {
	if err := r.s.mayAdd(ctx, []geomlib.Provider{p}); err != nil {
		return err
	}
	return r.s.vol.Add([]geomlib.Provider{p}, virstor.AddOptions{})
}

func (r *relief) grow(ctx context.Context) {
	g, volume := r.d.space().Grower, r.s.vol.Name()
	may := g != nil && g.Has(volume)
	r.mu.Lock()
	known := len(r.spares) > 0 || r.added > 0 || may
	r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if may {
		name, err := r.growOnce(ctx, g, volume)
		if err == nil {
			r.tellAdded(name, "new file")
			return
		}
		r.mu.Lock()
		again := r.noGrow != nil && r.noGrow.Error() == err.Error()
		r.noGrow = err
		r.mu.Unlock()
		if !again {
			r.count()
			r.s.sentry.say(alert.SpareFailed, slog.LevelError, "", fmt.Sprintf("GEOM_VIRSTOR[1]: Device %s can't grow: %v", volume, err))
		}
	}
	r.mu.Lock()
	first := known && !r.out
	r.out = true
	r.mu.Unlock()
	if first {
		r.s.sentry.say(alert.SparesOut, slog.LevelError, "", fmt.Sprintf("GEOM_VIRSTOR[1]: Device %s is running out of physical space and there is no spare left", volume))
	}
}

func (r *relief) growOnce(ctx context.Context, g Grower, volume string) (string, error) {
	name, err := g.Grow(ctx, volume)
	if err != nil {
		return "", err
	}
	p, err := r.d.opener.Open(name, false, r.s.vol.SectorSize())
	if err == nil {
		if err = r.add(ctx, p); err != nil {
			err = errors.Join(err, p.Close())
		}
	}
	if err != nil {
		return "", errors.Join(err, g.Undo(context.WithoutCancel(ctx), volume, name))
	}
	return name, nil
}

func (r *relief) tellAdded(name, what string) {
	r.mu.Lock()
	r.added++
	r.retryAt = time.Time{} // the next one may be needed at once
	r.mu.Unlock()
	r.s.sentry.say(alert.SpareAdded, slog.LevelWarn, name, fmt.Sprintf("GEOM_VIRSTOR[2]: Component %s added to %s (%s)", name, r.s.vol.Name(), what))
	r.s.sentry.look()
}

// fail names a spare that cannot be used. It stays on the list, and is named
// again only when the reason is another.
func (r *relief) fail(sp *spare, err error) {
	r.mu.Lock()
	r.closeLocked(sp)
	sp.err = err
	known := false
	i := slices.IndexFunc(r.spares, func(o *spare) bool { return o == sp || o.err != nil && sameProvider(o.name, sp.name) })
	if i < 0 {
		r.spares = append(r.spares, sp)
	} else {
		known = r.spares[i].told == err.Error()
		r.spares[i] = sp
	}
	sp.told = err.Error()
	r.mu.Unlock()
	if known {
		return
	}
	r.count()
	r.s.sentry.say(alert.SpareFailed, slog.LevelError, sp.name, fmt.Sprintf("GEOM_VIRSTOR[1]: Spare %s of %s can't be used: %v", sp.name, r.s.vol.Name(), err))
}

func (r *relief) count() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
}

// next is the first spare that has not failed.
func (r *relief) next() *spare {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sp := range r.spares {
		if sp.err == nil {
			return sp
		}
	}
	return nil
}

// drop forgets a spare that is one no more.
func (r *relief) drop(sp *spare) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spares = slices.DeleteFunc(r.spares, func(o *spare) bool { return o == sp })
}

// check makes sure that p is labelled as a spare of this volume.
func (r *relief) check(p geomlib.Provider) (int64, error) {
	l, err := geomlib.ReadSpare(p)
	if err != nil {
		return 0, err
	}
	if v := r.s.vol; l.VolumeID != v.ID() {
		return 0, fmt.Errorf("%s is a spare of %s (id %08x)", p.Name(), ondisk.Printable(l.Name), l.VolumeID)
	}
	return p.MediaSize(), nil
}

// open opens a labelled spare and keeps it for this volume alone.
func (r *relief) open(name string, sectorSize int) (*spare, error) {
	if sectorSize == 0 {
		sectorSize = r.s.vol.SectorSize()
	}
	p, err := r.d.opener.Open(name, false, sectorSize)
	if err != nil {
		return nil, err
	}
	if _, err := r.check(p); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return r.keep(p), nil
}

// keep takes an open spare, in the place of one of that name that failed.
func (r *relief) keep(p geomlib.Provider) *spare {
	r.mu.Lock()
	defer r.mu.Unlock()
	sp := &spare{name: p.Name(), p: p}
	r.out, r.retryAt = false, time.Time{}
	if i := slices.IndexFunc(r.spares, func(o *spare) bool { return o.err != nil && sameProvider(o.name, sp.name) }); i >= 0 {
		sp.told = r.spares[i].told
		r.spares[i] = sp
	} else {
		r.spares = append(r.spares, sp)
	}
	return sp
}

// sameProvider compares names with or without /dev/.
func sameProvider(a, b string) bool {
	return strings.TrimPrefix(a, "/dev/") == strings.TrimPrefix(b, "/dev/")
}

// holds reports whether a provider of that name is kept open as a spare.
func (r *relief) holds(name string) bool {
	sp := r.find(name)
	if sp == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return sp.err == nil
}

// find is the spare of that name, with or without /dev/.
func (r *relief) find(name string) *spare {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sp := range r.spares {
		if sameProvider(sp.name, name) {
			return sp
		}
	}
	return nil
}

// report is what status and metrics tell.
func (r *relief) report() (spares []control.Spare, added, failed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sp := range r.spares {
		c := control.Spare{Name: sp.name}
		if sp.p != nil {
			c.Size = sp.p.MediaSize()
		}
		if sp.err != nil {
			c.Failed = sp.err.Error()
		}
		spares = append(spares, c)
	}
	return spares, r.added, r.failed
}

// Spare implements control.Backend.
func (d *Daemon) Spare(ctx context.Context, name string, q control.SpareRequest) error {
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if s.vol.ReadOnly() {
		return control.Errorf(control.Invalid, "%s is read-only", s.vol.Name())
	}
	for _, name := range q.Providers {
		if q.Remove {
			err = s.relief.remove(name)
		} else {
			err = s.relief.label(ctx, name, q.SectorSize)
		}
		if err != nil {
			return classify(err)
		}
	}
	s.sentry.look()
	return nil
}

// label makes a provider a spare.
func (r *relief) label(ctx context.Context, name string, sectorSize int) error {
	if r.holds(name) {
		return control.Errorf(control.Invalid, "%s already is a spare of %s", name, r.s.vol.Name())
	}
	ps, err := r.d.openFree(r.s, control.AddRequest{Providers: []string{name}, SectorSize: sectorSize})
	if err == nil {
		err = r.suits(ctx, ps[0])
	}
	if err == nil {
		err = geomlib.StoreSpare(ps[0], r.s.vol.Name(), r.s.vol.ID())
	}
	if err != nil {
		for _, p := range ps {
			err = errors.Join(err, p.Close())
		}
		return err
	}
	if failed := r.find(name); failed != nil {
		r.drop(failed) // this one is another try
	}
	r.keep(ps[0])
	return nil
}

// suits refuses now what add would refuse when it matters.
func (r *relief) suits(ctx context.Context, p geomlib.Provider) error {
	v := r.s.vol
	if l, err := geomlib.ReadSpare(p); err == nil && l.VolumeID != v.ID() {
		return control.Errorf(control.Invalid, "%s is a spare of %s; `gvirstor clear %s` first if it is not needed there", p.Name(), ondisk.Printable(l.Name), p.Name())
	}
	if p.SectorSize() != v.SectorSize() {
		return control.Errorf(control.Invalid, "Sector size doesn't fit for %s (%d, needs to be %d)", p.Name(), p.SectorSize(), v.SectorSize())
	}
	if p.MediaSize() < 4*v.ChunkSize() {
		return control.Errorf(control.Invalid, "Provider too small: %s (%d bytes, needs %d)", p.Name(), p.MediaSize(), 4*v.ChunkSize())
	}
	return r.s.mayAdd(ctx, []geomlib.Provider{p})
}

// remove takes the label off a spare.
func (r *relief) remove(name string) error {
	r.using.Lock()
	defer r.using.Unlock()
	sp := r.find(name)
	if sp == nil {
		return control.Errorf(control.Invalid, "%s is no spare of %s", name, r.s.vol.Name())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if sp.p != nil {
		if err := geomlib.ClearMetadata(sp.p); err != nil {
			return err
		}
	}
	r.closeLocked(sp)
	r.spares = slices.DeleteFunc(r.spares, func(o *spare) bool { return o == sp })
	return nil
}

// spareError: the provider is no component but a spare.
type spareError struct{ label ondisk.Spare }

func (e *spareError) Error() string { return "a spare of " + ondisk.Printable(e.label.Name) }

// lostSpare is a provider that is expected to be a spare and is not.
type lostSpare struct {
	volume, name string
	err          error
}

// handOutLost tells volumes in service of spares that they do not have. What is
// left are problems.
func (d *Daemon) handOutLost(lost []lostSpare) (problems []control.Problem) {
	for _, l := range lost {
		d.mu.Lock()
		s := d.volumes[l.volume]
		d.mu.Unlock()
		if s == nil || s.vol.ReadOnly() {
			problems = append(problems, control.Problem{Providers: []string{l.name}, Reason: l.err.Error()})
			continue
		}
		if !s.relief.holds(l.name) && !s.isComponent(l.name) { // it may have been added meanwhile
			s.relief.fail(&spare{name: l.name}, l.err)
		}
	}
	return problems
}

// handOutSpares gives spares that were just found to volumes that are served
// already. d.verbs is held.
func (d *Daemon) handOutSpares() {
	for _, s := range d.all() {
		names := d.spares[s.vol.ID()]
		delete(d.spares, s.vol.ID())
		for _, name := range names {
			if _, err := s.relief.open(name, 0); err != nil {
				s.relief.fail(&spare{name: name}, err)
			}
		}
	}
}

// Reserve implements control.Backend.
func (d *Daemon) Reserve(_ context.Context, name string, q control.ReserveRequest) error {
	s, err := d.findActive(name)
	if err != nil {
		return err
	}
	if err := s.vol.SetReserve(q.Chunks); err != nil {
		return classify(err)
	}
	d.log.Info("reserve changed", "volume", s.vol.Name(), "chunks", q.Chunks)
	return nil
}
