package space

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Grower makes providers for volumes that run out of space. A supervisor may
// stand behind it. Its methods may be called by many goroutines.
type Grower interface {
	// Has reports whether the volume of that name may grow at all.
	Has(volume string) bool
	// Grow makes a provider and returns its name.
	Grow(ctx context.Context, volume string) (provider string, err error)
	// Undo removes what Grow made and what could not be added.
	Undo(ctx context.Context, volume, provider string) error
}

// SpareOptions say what the daemon does itself when space gets short.
type SpareOptions struct {
	// Percent of the physical space that must be allocated; 0: never.
	Percent int
	Grower  Grower // or nil
	// Spares tells of which volumes providers are expected to be spares.
	Spares map[string]string
	// Margin is by how many percent points less must be allocated until space is
	// no longer taken to be short.
	Margin int
}

// Spares adds spares and grown files to one volume. What it adds it adds on a
// goroutine of its own. Its methods may be called by many goroutines.
type Spares struct {
	host  Host
	watch *Watch
	log   *slog.Logger
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

// Start opens the spares of those names, and then waits until space is short.
func (s *Spares) Start(names []string) {
	s.task = publish.StartTask(func(ctx context.Context) {
		for _, name := range names {
			s.Hold(name)
		}
		s.watch.Look()
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.short:
				s.addOne(ctx)
			}
		}
	})
}

// Stop ends the goroutine and closes the spares. It does nothing before Start.
func (s *Spares) Stop(ctx context.Context) {
	if s.task == nil {
		return
	}
	s.task.Stop(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.spares {
		s.closeLocked(sp)
	}
	s.spares = nil
}

// Count is how many spares there are, those that failed included.
func (s *Spares) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spares)
}

// closeLocked closes a spare that is not used; s.mu is held.
func (s *Spares) closeLocked(sp *spare) {
	if sp.p == nil {
		return
	}
	if err := sp.p.Close(); err != nil {
		s.log.Warn("a spare could not be closed", "provider", sp.name, "error", err)
	}
	sp.p = nil
}

// consider has the goroutine add something if space is short.
func (s *Spares) consider(f *Figures) {
	o := s.host.SpareOptions()
	short := o.Percent > 0 && f.Above(o.Percent)
	s.mu.Lock()
	if !short && !f.Above(max(1, o.Percent-o.Margin)) {
		s.out, s.noGrow, s.retryAt = false, nil, time.Time{}
	}
	s.mu.Unlock()
	// What is added to a degraded volume could not be allocated either.
	if !short || !f.Writable || f.Degraded {
		return
	}
	select {
	case s.short <- struct{}{}:
	default:
	}
}

// addOne adds one provider; the look that follows decides whether that is
// enough.
func (s *Spares) addOne(ctx context.Context) {
	f := s.host.Figures()
	if !f.Above(s.host.SpareOptions().Percent) {
		return
	}
	if s.useSpare(ctx) || ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	wait := time.Now().Before(s.retryAt)
	if !wait {
		s.retryAt = time.Now().Add(retryPause)
	}
	s.mu.Unlock()
	if wait {
		return
	}
	s.reopen()
	if !s.useSpare(ctx) {
		s.grow(ctx)
	}
}

// retryPause is how long what failed is not tried again.
const retryPause = time.Minute

// reopen opens the spares that failed: what kept one from being used, such as a
// disk that was away, may have passed.
func (s *Spares) reopen() {
	s.using.Lock()
	defer s.using.Unlock()
	s.mu.Lock()
	var failed []*spare
	for _, sp := range s.spares {
		if sp.err != nil {
			failed = append(failed, sp)
		}
	}
	s.mu.Unlock()
	for _, sp := range failed {
		s.Hold(sp.name)
	}
}

// useSpare adds the first spare that can be, and names those that cannot.
func (s *Spares) useSpare(ctx context.Context) bool {
	s.using.Lock()
	defer s.using.Unlock()
	for ctx.Err() == nil {
		sp := s.next()
		if sp == nil {
			return false
		}
		if err := s.use(ctx, sp); err != nil {
			s.fail(sp, err)
			continue
		}
		s.drop(sp)
		s.tellAdded(sp.name, "spare")
		return true
	}
	return false
}

// use makes a spare a component.
func (s *Spares) use(ctx context.Context, sp *spare) error {
	if err := s.check(sp.p); err != nil {
		return err // somebody changed it meanwhile
	}
	return s.add(ctx, sp.p)
}

// add makes an open provider a component; then the volume owns it.
func (s *Spares) add(ctx context.Context, p geomlib.Provider) error {
	if err := s.host.MayAdd(ctx, p); err != nil {
		return err
	}
	return s.host.Add(p)
}

func (s *Spares) grow(ctx context.Context) {
	g, volume := s.host.SpareOptions().Grower, s.host.Name()
	may := g != nil && g.Has(volume)
	s.mu.Lock()
	known := len(s.spares) > 0 || s.added > 0 || may
	s.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if may {
		name, err := s.growOnce(ctx, g, volume)
		if err == nil {
			s.tellAdded(name, "new file")
			return
		}
		s.mu.Lock()
		again := s.noGrow != nil && s.noGrow.Error() == err.Error()
		s.noGrow = err
		s.mu.Unlock()
		if !again {
			s.count()
			s.watch.say(SpareFailed, slog.LevelError, "", fmt.Sprintf("GEOM_VIRSTOR[1]: Device %s can't grow: %v", volume, err))
		}
	}
	s.mu.Lock()
	first := known && !s.out
	s.out = true
	s.mu.Unlock()
	if first {
		s.watch.say(SparesOut, slog.LevelError, "", fmt.Sprintf("GEOM_VIRSTOR[1]: Device %s is running out of physical space and there is no spare left", volume))
	}
}

func (s *Spares) growOnce(ctx context.Context, g Grower, volume string) (string, error) {
	name, err := g.Grow(ctx, volume)
	if err != nil {
		return "", err
	}
	p, err := s.host.Open(name, 0)
	if err == nil {
		if err = s.add(ctx, p); err != nil {
			err = errors.Join(err, p.Close())
		}
	}
	if err != nil {
		return "", errors.Join(err, g.Undo(context.WithoutCancel(ctx), volume, name))
	}
	return name, nil
}

func (s *Spares) tellAdded(name, what string) {
	s.mu.Lock()
	s.added++
	s.retryAt = time.Time{} // the next one may be needed at once
	s.mu.Unlock()
	s.watch.say(SpareAdded, slog.LevelWarn, name, fmt.Sprintf("GEOM_VIRSTOR[2]: Component %s added to %s (%s)", name, s.host.Name(), what))
	s.watch.Look()
}

// Fail names a provider that is expected to be a spare and is none.
func (s *Spares) Fail(name string, err error) { s.fail(&spare{name: name}, err) }

// fail names a spare that cannot be used. It stays on the list, and is named
// again only when the reason is another.
func (s *Spares) fail(sp *spare, err error) {
	s.mu.Lock()
	s.closeLocked(sp)
	sp.err = err
	known := false
	i := slices.IndexFunc(s.spares, func(o *spare) bool { return o == sp || o.err != nil && geomlib.Name(o.name).Same(sp.name) })
	if i < 0 {
		s.spares = append(s.spares, sp)
	} else {
		known = s.spares[i].told == err.Error()
		s.spares[i] = sp
	}
	sp.told = err.Error()
	s.mu.Unlock()
	if known {
		return
	}
	s.count()
	s.watch.say(SpareFailed, slog.LevelError, sp.name, fmt.Sprintf("GEOM_VIRSTOR[1]: Spare %s of %s can't be used: %v", sp.name, s.host.Name(), err))
}

func (s *Spares) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
}

// next is the first spare that has not failed.
func (s *Spares) next() *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.spares {
		if sp.err == nil {
			return sp
		}
	}
	return nil
}

// drop forgets a spare that is one no more.
func (s *Spares) drop(sp *spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spares = slices.DeleteFunc(s.spares, func(o *spare) bool { return o == sp })
}

// check makes sure that p is labelled as a spare of this volume.
func (s *Spares) check(p geomlib.Provider) error {
	l, err := geomlib.ReadSpare(p)
	if err != nil {
		return err
	}
	if l.VolumeID != s.host.ID() {
		return fmt.Errorf("%s is a spare of %s (id %08x)", p.Name(), ondisk.Printable(l.Name), l.VolumeID)
	}
	return nil
}

// Hold opens a labelled spare and keeps it for this volume alone. One that cannot be
// had is named, as Fail does.
func (s *Spares) Hold(name string) {
	if err := s.open(name); err != nil {
		s.Fail(name, err)
	}
}

func (s *Spares) open(name string) error {
	p, err := s.host.Open(name, 0)
	if err != nil {
		return err
	}
	if err := s.check(p); err != nil {
		return errors.Join(err, p.Close())
	}
	s.keep(p)
	return nil
}

// Take keeps an open provider that has just been labelled as a spare of the volume;
// one of that name that failed is forgotten.
func (s *Spares) Take(name string, p geomlib.Provider) {
	if failed := s.findSpare(name); failed != nil {
		s.drop(failed) // this one is another try
	}
	s.keep(p)
}

// keep takes an open spare, in the place of one of that name that failed.
func (s *Spares) keep(p geomlib.Provider) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := &spare{name: p.Name(), p: p}
	s.out, s.retryAt = false, time.Time{}
	if i := slices.IndexFunc(s.spares, func(o *spare) bool { return o.err != nil && geomlib.Name(o.name).Same(sp.name) }); i >= 0 {
		sp.told = s.spares[i].told
		s.spares[i] = sp
	} else {
		s.spares = append(s.spares, sp)
	}
}

// Providers are the spares that are open.
func (s *Spares) Providers() []geomlib.Provider {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ps []geomlib.Provider
	for _, sp := range s.spares {
		if sp.p != nil {
			ps = append(ps, sp.p)
		}
	}
	return ps
}

// Holds reports whether a provider of that name is kept open as a spare.
func (s *Spares) Holds(name string) bool {
	sp := s.findSpare(name)
	if sp == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return sp.err == nil
}

// findSpare is the spare of that name, with or without /dev/.
func (s *Spares) findSpare(name string) *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.spares {
		if geomlib.Name(sp.name).Same(name) {
			return sp
		}
	}
	return nil
}

// SpareStatus is one spare as status and metrics tell of it.
type SpareStatus struct {
	Name string
	Size int64 // bytes; 0 once it failed
	Err  error // why it cannot be used
}

// Report is what status and metrics tell: the spares in the order in which they are
// used, how many providers were added, and how often one failed.
func (s *Spares) Report() (spares []SpareStatus, added, failed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.spares {
		st := SpareStatus{Name: sp.name, Err: sp.err}
		if sp.p != nil {
			st.Size = sp.p.MediaSize()
		}
		spares = append(spares, st)
	}
	return spares, s.added, s.failed
}

// ErrNoSpare is wrapped by Spares.Remove when there is no spare of that name.
var ErrNoSpare = errors.New("no spare")

// Remove takes the label off a spare, and closes it.
func (s *Spares) Remove(name string) error {
	s.using.Lock()
	defer s.using.Unlock()
	sp := s.findSpare(name)
	if sp == nil {
		return fmt.Errorf("%s of %s: %w", name, s.host.Name(), ErrNoSpare)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp.p != nil {
		if err := geomlib.ClearMetadata(sp.p); err != nil {
			return err
		}
	}
	s.closeLocked(sp)
	s.spares = slices.DeleteFunc(s.spares, func(o *spare) bool { return o == sp })
	return nil
}
