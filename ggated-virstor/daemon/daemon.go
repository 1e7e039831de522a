package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Opener opens what needs privilege. A supervisor may stand behind it.
type Opener interface {
	// Open opens a provider with its exclusive lock. sectorSize is that of a
	// regular file, in bytes; 0 finds out.
	Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error)
	// Peek opens a provider for reading, without a lock and without waiting
	// for GEOM.
	Peek(name string, sectorSize int) (geomlib.Provider, error)
	// LockVolume keeps other processes from serving the volume.
	LockVolume(id uint32) (io.Closer, error)
}

// Options are how a Daemon serves.
type Options struct {
	Version  string
	ReadOnly bool
	Volume   virstor.Config // policies of every volume
	Alerts   space.AlertOptions
	Spares   space.SpareOptions
	Archive  Archive // of backups; nil: none are made
	Memory   Memory  // of what was served here; nil: none
	// ForceOld are the names of volumes of which an older state than was served here
	// is served.
	ForceOld []string
	Lease    LeaseOptions
	// PerVolume are those of volumes, by their names, that have their own.
	PerVolume map[string]virstor.Config
}

// Daemon serves volumes. It is the Backend of a control.Server.
type Daemon struct {
	opt        Options
	opener     *patient
	publishers []publish.Publisher
	log        *slog.Logger

	started time.Time
	hub     control.Hub

	// verbs serialises what changes the set of volumes.
	verbs sync.Mutex
	loose map[string]virstor.Member // opened providers of volumes not served; guarded by verbs
	named []string                  // bare names of providers in the order in which they were first named; guarded by verbs

	ended bool           // guarded by verbs
	later sync.WaitGroup // of what waits for verbs by itself

	mu       sync.Mutex
	volumes  map[string]*served
	leasings map[uint32]*leasing // by volume id; changed under verbs, too
	problems []control.Problem

	// spares are the names of providers labelled as spares of volumes that
	// are not served yet, by volume id; guarded by verbs.
	spares    map[uint32][]string
	takeovers atomic.Uint64
}

// served is one volume in service.
type served struct {
	vol  *virstor.Volume
	lock io.Closer
	pubs []publish.Published

	events *watcher
	watch  *space.Watch
	spares *space.Spares
	backup *autoBackup
	notes  *notes
	// drawing is of its map.
	drawing drawing
	// writable are what the volume was activated with; the takeover's alone, and the volume
	// closes them.
	writable []geomlib.Provider
	// takeover ends the goroutine that makes a deferred volume writable.
	takeover *publish.Task
}

// New makes a Daemon that serves nothing yet.
func New(opt Options, opener Opener, publishers []publish.Publisher, log *slog.Logger) *Daemon {
	return &Daemon{
		opt: opt, opener: newPatient(opener, log), publishers: publishers, log: log, started: time.Now(),
		volumes: make(map[string]*served), leasings: make(map[uint32]*leasing),
		loose:  make(map[string]virstor.Member),
		spares: make(map[uint32][]string),
	}
}

// StopWaiting gives up opens that hang, which end with ErrStopping, so that what
// ends the daemon need not wait for them. It may be called by any goroutine, more than once.
func (d *Daemon) StopWaiting() { d.opener.giveUp() }

// ServeAll serves every volume that is complete with the named providers. What
// cannot be served is logged and remembered as a problem. It returns the number of
// volumes in service.
func (d *Daemon) ServeAll(names []string) int {
	d.serve(names, 0)
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.volumes)
}

// serve opens providers and serves the volumes that they complete.
func (d *Daemon) serve(names []string, sectorSize int) ([]control.VolumeStatus, []control.Problem) {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	var problems []control.Problem
	var lost []lostSpare
	var short shortage
	left, err := d.leftovers()
	if err != nil {
		problems = append(problems, control.Problem{Reason: err.Error()})
	}
	opens := d.openAhead(len(left) > 0)
	defer opens.close()
	names = withLeft(names, left)
	for _, name := range names {
		if !d.knows(name) {
			opens.begin(name, sectorSize)
		}
	}
	seen := make(map[string]bool) // a spare may be named as such and as a provider
	for _, name := range names {
		bare := geomlib.Name(name).Bare()
		if !slices.Contains(d.named, bare) {
			d.named = append(d.named, bare)
		}
		if seen[bare] || d.knows(name) {
			continue
		}
		seen[bare] = true
		if err := d.twin(name); err != nil {
			problems = append(problems, control.Problem{Providers: []string{name}, Reason: err.Error()})
			continue
		}
		m, err := opens.member(name, sectorSize)
		err = explainSpare(d.spareOptions().Spares, name, err)
		if spare := (*spareError)(nil); errors.As(err, &spare) {
			id := spare.label.VolumeID
			d.spares[id] = append(d.spares[id], name)
			continue
		}
		if volume, expected := d.spareOptions().Spares[name]; expected && err != nil {
			lost = append(lost, lostSpare{volume, name, err})
			continue
		}
		if short.count(name, err) {
			continue
		}
		if err != nil {
			problems = append(problems, control.Problem{Providers: []string{name}, Reason: err.Error()})
			continue
		}
		d.loose[m.Provider.Name()] = m
	}
	problems = append(problems, short.problems()...)
	d.openRemembered(opens)
	fresh, more := d.assemble(left)
	problems = append(problems, more...)
	d.handOutSpares()
	problems = append(problems, d.handOutLost(lost)...)
	for _, p := range problems {
		d.log.Error("not served", "volume", p.Volume, "providers", strings.Join(p.Providers, " "), "reason", p.Reason)
	}
	d.mu.Lock()
	d.problems = problems
	d.mu.Unlock()
	served := []control.VolumeStatus{}
	for _, s := range fresh {
		served = append(served, s.status())
	}
	return served, problems
}

// knows reports whether a provider is open already, as part of a volume or not.
func (d *Daemon) knows(name string) bool {
	for known := range d.loose {
		if geomlib.Name(name).Same(known) {
			return true
		}
	}
	return d.user(name) != ""
}

// open opens a component to be served. One that takes no writes is opened to be read: the
// engine leaves it behind, and lets it leave.
func (d *Daemon) open(name string, sectorSize int) (geomlib.Provider, error) {
	p, err := d.opener.Open(name, d.opt.ReadOnly, sectorSize)
	if d.opt.ReadOnly || !errors.Is(err, syscall.EROFS) {
		return p, err
	}
	d.log.Error("component can only be read", "component", name, "error", err)
	return d.opener.Open(name, true, sectorSize)
}

// assemble serves what the loose providers make complete: first the volumes
// whose devices wait for it, since opening anything else for writing may have to
// wait for these. d.verbs is held.
func (d *Daemon) assemble(left map[uint32][]string) (fresh []*served, problems []control.Problem) {
	if len(left) > 0 {
		fresh, problems = d.takeOver(left)
		problems = append(problems, d.reopen()...)
	}
	for _, a := range d.inOrder(virstor.Assemble(slices.Collect(maps.Values(d.loose)))) {
		s, err := d.serveOne(a, false)
		if err != nil {
			problems = append(problems, d.problemOf(a, err))
			continue
		}
		fresh = append(fresh, s)
		problems = append(problems, d.tidy(a)...)
	}
	return fresh, problems
}

// inOrder sorts volumes by which of them has the first of its components named first,
// so that of two of one name that one is served; those that nobody named come last, by
// name, whether this host served them before, and id. d.verbs is held.
func (d *Daemon) inOrder(as []*virstor.Assembly) []*virstor.Assembly {
	place := func(a *virstor.Assembly) int {
		first := len(d.named)
		for _, name := range providersOf(a) {
			if i := slices.Index(d.named, geomlib.Name(name).Bare()); i >= 0 {
				first = min(first, i)
			}
		}
		return first
	}
	slices.SortStableFunc(as, func(a, b *virstor.Assembly) int {
		if c := cmp.Compare(place(a), place(b)); c != 0 {
			return c
		}
		return d.byService(a, b)
	})
	return as
}

// providersOf are the names of a's components that are there.
func providersOf(a *virstor.Assembly) []string {
	var names []string
	for _, m := range a.Members {
		if m.Provider != nil {
			names = append(names, m.Provider.Name())
		}
	}
	return names
}

// tidy lets go of the loose providers that belong to a, which is served.
func (d *Daemon) tidy(a *virstor.Assembly) (problems []control.Problem) {
	d.forget(a)
	for _, ig := range a.Ignored {
		problems = append(problems, control.Problem{Volume: a.Name, ID: ondisk.VolumeID(a.ID),
			Providers: []string{ig.Provider.Name()}, Reason: ig.Reason.Error()})
		ig.Provider.Close()
		delete(d.loose, ig.Provider.Name())
	}
	return problems
}

// forget drops a's providers, which are the volume's now.
func (d *Daemon) forget(a *virstor.Assembly) {
	for _, m := range a.Members {
		delete(d.loose, m.Provider.Name())
	}
}

// serveOne opens and publishes one volume; deferred leaves its writes for
// later.
func (d *Daemon) serveOne(a *virstor.Assembly, deferred bool) (*served, error) {
	if a.Err != nil {
		return nil, a.Err
	}
	d.mu.Lock()
	other := d.volumes[a.Name]
	d.mu.Unlock()
	if other != nil {
		return nil, fmt.Errorf("id %08x: another volume named %s, with the id %08x, is served already; `gvirstor rename --offline %s %s NEW` gives this one another name",
			a.ID, a.Name, other.vol.ID(), strings.Join(providersOf(a), ","), a.Name)
	}
	var lease *virstor.Lease
	var lock io.Closer
	var err error
	if deferred { // the lease is needed when it is activated
		lock, err = d.opener.LockVolume(a.ID)
	} else {
		lock, lease, a, err = d.claim(a)
	}
	if err != nil {
		return nil, err
	}
	s := &served{lock: lock, events: newWatcher()}
	cfg := d.opt.policies(a.Name)
	cfg.ReadOnly = d.opt.ReadOnly
	cfg.DeferWrites = deferred && !d.opt.ReadOnly
	cfg.ServeStranded, cfg.Lease = true, lease
	cfg.Log = d.log
	s.watch, s.spares = space.New(spaceHost{d, s}, d.alertOptions(), d.log)
	cfg.Events = func(e virstor.Event) {
		s.events.post(e)
		s.watch.Post(e)
	}
	d.recall(a, &cfg)
	vol, err := virstor.Open(a, cfg)
	if err != nil {
		if errors.Is(err, virstor.ErrOldSet) {
			err = fmt.Errorf("%w (--force-old %s)", err, a.Name)
		}
		if lease != nil {
			err = errors.Join(err, lease.Close())
		}
		return nil, errors.Join(err, lock.Close())
	}
	s.vol = vol
	s.backup = newAutoBackup(d.opt.Archive, vol, d.log)
	s.notes = &notes{memory: d.opt.Memory, vol: vol, log: d.log}
	s.notes.take()
	for _, p := range d.publishers {
		pub, err := p.Publish(vol)
		if err != nil {
			d.forget(a)
			return nil, errors.Join(fmt.Errorf("publish %s: %w", a.Name, err), s.giveUp())
		}
		s.pubs = append(s.pubs, pub)
	}
	s.events.start(func(e virstor.Event) { d.follow(s, e) })
	s.watch.Start()
	s.backup.start()
	if !d.opt.ReadOnly {
		s.spares.Start(d.spares[a.ID])
		delete(d.spares, a.ID)
	}
	d.mu.Lock()
	d.volumes[a.Name] = s
	d.mu.Unlock()
	s.tellKeptBlocks(vol.Providers(), d.log)
	d.log.Info(fmt.Sprintf("GEOM_VIRSTOR: Device %s created.", a.Name), "id", fmt.Sprintf("%08x", a.ID),
		"size", vol.Size(), "components", len(a.Members))
	return s, nil
}

// tellKeptBlocks names the component files that discards give no space back to.
func (s *served) tellKeptBlocks(ps []geomlib.Provider, log *slog.Logger) {
	for _, p := range ps {
		if geomlib.KeepsBlocks(p) && s.vol.PassesDiscards() {
			log.Info("component file was preallocated: discards leave its blocks to it", "volume", s.vol.Name(), "component", p.Name())
		}
	}
}

// giveUp ends a volume that could not be published in all ways.
func (s *served) giveUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	return errors.Join(s.leave(ctx, false), s.close(ctx, false))
}

// withdraw ends all publications. publish.ErrInUse: nothing has ended.
func (s *served) withdraw(ctx context.Context) error {
	var err error
	for _, p := range s.pubs {
		e := p.Withdraw(ctx)
		if errors.Is(e, publish.ErrInUse) {
			return e
		}
		err = errors.Join(err, e)
	}
	return err
}

// leave ends all publications; with keep, and if its device is open, so that
// the next daemon can go on.
func (s *served) leave(ctx context.Context, keep bool) error {
	var err error
	for _, p := range s.pubs {
		e := publish.ErrInUse
		if !keep {
			e = p.Withdraw(ctx)
		}
		if errors.Is(e, publish.ErrInUse) {
			e = p.Leave(ctx)
		}
		err = errors.Join(err, e)
	}
	return err
}

// close closes a volume that is not published any more; handBack lifts the
// fence where that is possible.
func (s *served) close(ctx context.Context, handBack bool) error {
	if s.takeover != nil {
		s.takeover.Stop(ctx)
	}
	s.spares.Stop(ctx)
	s.backup.stop(ctx)
	var err error
	components := componentNames(s.vol)
	if handBack {
		// First: what the kernel class is given is never refused later.
		s.notes.beginAnew()
		err = s.vol.Stop()
	} else {
		err = s.vol.Close()
	}
	s.events.stop(ctx)
	s.notes.note(components)
	s.watch.Stop(ctx)
	return errors.Join(err, s.lock.Close())
}

// users sums up who has the volume open.
func (s *served) users() (int, string) {
	n, what := 0, []string{}
	for _, p := range s.pubs {
		if k, w := p.Users(); k > 0 {
			n += k
			what = append(what, w)
		}
	}
	return n, strings.Join(what, ", ")
}

// closeGrace is how long a publication may take to answer what it took.
const closeGrace = 30 * time.Second

// Close ends all volumes, keeping their fences. A device that is open stays, and
// waits for the next daemon.
func (d *Daemon) Close() error { return d.end(false) }

// Leave ends all volumes, keeping their fences and all devices for the next
// daemon.
func (d *Daemon) Leave() error { return d.end(true) }

func (d *Daemon) end(keep bool) error {
	d.verbs.Lock()
	defer d.later.Wait()
	defer d.verbs.Unlock()
	d.ended = true
	for id := range d.leasings {
		d.dropLeasing(id)
	}
	d.mu.Lock()
	volumes := d.volumes
	d.volumes = make(map[string]*served)
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	var all error
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		s := volumes[name]
		err := s.leave(ctx, keep)
		if !keep {
			s.backup.keep()
		} else {
			s.vol.KeepLease()
		}
		err = errors.Join(err, s.close(ctx, false))
		if err == nil {
			d.log.Info(fmt.Sprintf("GEOM_VIRSTOR: Device %s closed.", name))
		}
		all = errors.Join(all, err)
	}
	for _, m := range d.loose {
		all = errors.Join(all, m.Provider.Close())
	}
	clear(d.loose)
	return all
}
