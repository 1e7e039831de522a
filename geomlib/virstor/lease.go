package virstor

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/lease"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Defaults of LeaseConfig.
const (
	DefaultLeaseInterval = 5 * time.Second
	DefaultLeaseSettle   = time.Minute
)

var (
	// ErrLeased: another host serves the volume, as its lease says.
	ErrLeased = errors.New("another host has the lease")
	// ErrNoLease: the label left no room for a lease.
	ErrNoLease = errors.New("the volume has no room for a lease")
	// ErrLeaseUnwritten: component 0 takes no writes. What it could be served with
	// otherwise another host may write, too.
	ErrLeaseUnwritten = errors.New("component 0 does not take the lease")
	// ErrLeaseHidden: component 0 is not there, or its metadata cannot be read.
	ErrLeaseHidden = errors.New("where the lease is, on component 0, cannot be told")
)

// LeaseConfig is how a lease is taken.
type LeaseConfig struct {
	Interval time.Duration // how often it is renewed; 0: DefaultLeaseInterval
	// Settle is how long what was sent to a component may take to be done or given up,
	// and this process may be stopped between looking at the clock and sending; 0:
	// DefaultLeaseSettle.
	Settle time.Duration

	Host     [16]byte // of this host, for people
	HostName string

	// Last is the owner that this host had in its last lease of the volume (Note), whose
	// local locks this process holds: such a lease is continued at once. 0: unknown.
	Last uint64
	// Note, if not nil, keeps the owner for Last before the lease is written.
	Note func(owner uint64) error

	// TakeOver: somebody says that the other host is dead. Its lease is not waited for.
	TakeOver bool
	// Fence, if not nil, has another host fenced off before its lease is taken.
	Fence func(ctx context.Context, owner LeaseOwner) error
	// Waits, if not nil, is called when another's lease is waited for, until when about.
	Waits func(owner LeaseOwner, until time.Time)
	// Failed, if not nil, is told of renewals that fail.
	Failed func(error)
}

// LeaseOwner is who has a lease, or had it.
type LeaseOwner struct {
	HostName string // printable; empty: it cannot be read
	Host     [16]byte
	Since    time.Time // by that host's clock
	Released bool
}

func (o LeaseOwner) String() string {
	if o.HostName == "" {
		return "a host without a name"
	}
	return o.HostName
}

func ownerOf(f lease.Found) LeaseOwner {
	l, known := f.Owner()
	if !known || l.Owner == 0 {
		return LeaseOwner{}
	}
	return LeaseOwner{l.HostName, l.Host, time.Unix(l.Taken, 0), l.Released}
}

// LeaseOn is the lease on p, a component with the metadata m; nil where there is none, as on
// all components but 0. One that cannot be read has an owner without a name.
func LeaseOn(p geomlib.Provider, m ondisk.Metadata) (*LeaseOwner, error) {
	off, room := ondisk.LeaseOffset(m, p.SectorSize())
	if m.No != 0 || !room || off+ondisk.ExtensionSize/2 > p.MediaSize() {
		return nil, nil
	}
	f, err := (&leaseStore{id: m.ID}).read(leasePlace{p: p, off: off}, nil, false)
	if err != nil {
		return nil, fmt.Errorf("read the lease on %s: %w", p.Name(), err)
	}
	if f == (lease.Found{}) {
		return nil, nil
	}
	owner := ownerOf(f)
	return &owner, nil
}

// NeedsLease reports whether other hosts can reach a component of a.
func (a *Assembly) NeedsLease() bool {
	for _, m := range a.Members {
		if _, ok := m.Provider.(geomlib.Guarded); ok {
			return true
		}
	}
	return false
}

// Leased is whose lease is on the components now, past every cache. found is false where
// there is none, or one that was released, or that of last (LeaseConfig.Last).
func (a *Assembly) Leased(last uint64) (owner LeaseOwner, found bool, err error) {
	if !a.NeedsLease() && !a.hasLease() {
		return LeaseOwner{}, false, nil // and caches are left alone
	}
	f, err := newLeaseStore(a).Look()
	if err != nil {
		return LeaseOwner{}, false, err
	}
	owner = ownerOf(f)
	return owner, f.Damaged != 0 || f.Lease.Owner != 0 && f.Lease.Owner != last && !f.Lease.Released, nil
}

// hasLease reports whether there may be a lease on a component that says it is number 0,
// and that was not released.
func (a *Assembly) hasLease() bool {
	for _, m := range a.Members {
		if m.Provider == nil {
			continue
		}
		if l, err := LeaseOn(m.Provider, m.Metadata); err != nil || l != nil && !l.Released {
			return true
		}
	}
	return false
}

// Lease is one that this process has: it is renewed until Close, or until another host has
// it. It is the Guard of the components.
type Lease struct {
	cfg    LeaseConfig
	store  *leaseStore
	keeper atomic.Pointer[lease.Keeper]
	fenced bool
	end    sync.Once
	result error
}

// Take takes the lease of a, whose components are open for writing, and waits for
// another's until ctx ends. ErrLeased: the other host is alive. What a was made of may
// have changed meanwhile: it is to be made anew (Again).
func (a *Assembly) Take(ctx context.Context, cfg LeaseConfig) (*Lease, error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultLeaseInterval
	}
	if cfg.Settle == 0 {
		cfg.Settle = DefaultLeaseSettle
	}
	l := &Lease{cfg: cfg, store: newLeaseStore(a), fenced: cfg.Fence != nil}
	for _, m := range a.Members {
		l.guard(m.Provider)
	}
	if err := l.take(ctx, a.ID); err != nil {
		for _, m := range a.Members {
			unguard(m.Provider)
		}
		return nil, fmt.Errorf("take the lease of %s: %w", ondisk.Printable(a.Name), err)
	}
	return l, nil
}

// Again is a as it is on the components now.
func (a *Assembly) Again() (*Assembly, error) { return a.readAgain() }

func (l *Lease) take(ctx context.Context, id uint32) error {
	before, err := l.store.Look()
	if err != nil {
		return err
	}
	me := ondisk.Lease{VolumeID: id, Interval: l.cfg.Interval, Settle: l.cfg.Settle, Host: l.cfg.Host,
		HostName: ondisk.LeaseHostName(l.cfg.HostName), Taken: time.Now().Unix()}
	var o lease.Options
	if has := before.Lease; l.cfg.Last != 0 && has.Owner == l.cfg.Last && !has.Released {
		me.Owner, me.Sequence, me.Taken, o.Continues = has.Owner, has.Sequence, has.Taken, true
	} else {
		for me.Owner == 0 {
			me.Owner = rand.Uint64()
		}
		if l.cfg.Note != nil {
			if err := l.cfg.Note(me.Owner); err != nil {
				return fmt.Errorf("note whose it is: %w", err)
			}
		}
	}
	o.Hurry = l.cfg.TakeOver
	var seen lease.Found
	env := lease.Environment{Store: l.store, Now: geomlib.SinceBoot, Failed: l.cfg.Failed, Told: func(s lease.State, f lease.Found, until lease.Time) {
		seen = f
		if l.cfg.Waits != nil && (s == lease.Watching || s == lease.Waiting && until-geomlib.SinceBoot() > l.cfg.Interval) {
			l.cfg.Waits(ownerOf(f), time.Now().Add(until-geomlib.SinceBoot()))
		}
	}}
	if l.cfg.Fence != nil {
		env.Fence = func(ctx context.Context, f lease.Found) error { return l.cfg.Fence(ctx, ownerOf(f)) }
	}
	k, err := lease.Take(ctx, me, o, env)
	if errors.Is(err, lease.ErrRefused) {
		return fmt.Errorf("%w: %v", ErrLeased, ownerOf(seen))
	}
	if err != nil {
		return err
	}
	l.keeper.Store(k)
	return nil
}

// guard has p ask the lease before anything is changed.
func (l *Lease) guard(p geomlib.Provider) {
	if g, ok := p.(geomlib.Guarded); ok {
		g.Guard(l)
	}
}

func unguard(p geomlib.Provider) {
	if g, ok := p.(geomlib.Guarded); ok {
		g.Guard(nil)
	}
}

// MaySend is geomlib.Guard's.
func (l *Lease) MaySend() bool {
	k := l.keeper.Load()
	return k != nil && k.MaySend()
}

// Wait is geomlib.Guard's.
func (l *Lease) Wait() error {
	k := l.keeper.Load()
	if k == nil {
		return fmt.Errorf("%w: it is not taken yet", geomlib.ErrLeaseLost)
	}
	return l.lostIs(k.Wait(l.cfg.Settle))
}

// lostIs is err in the words of others.
func (l *Lease) lostIs(err error) error {
	if errors.Is(err, lease.ErrLost) {
		return l.Lost()
	}
	return err
}

// Lost is nil as long as the lease is there, or may be again; then an ErrLeaseLost that
// says who has it.
func (l *Lease) Lost() error {
	k := l.keeper.Load()
	select {
	case <-k.Lost():
		_, _, by := k.State()
		return fmt.Errorf("%w: %v has it", geomlib.ErrLeaseLost, ownerOf(by))
	default:
		return nil
	}
}

// Regained is geomlib.Guard's.
func (l *Lease) Regained(_ context.Context, p geomlib.Guarded, by geomlib.Once) error {
	k := l.keeper.Load()
	if k == nil {
		return nil // nothing was written
	}
	return l.lostIs(k.Renew(leaseBy{l.store, p.Name(), by}))
}

// Close releases the lease: nothing is written to the components any more, and all that
// was is on stable storage. Keep leaves it to the next process of this host; without it
// somebody else waits as for one who died.
func (l *Lease) Close() error { return l.close(true) }

// Keep ends renewing, and leaves the lease as it is.
func (l *Lease) Keep() error { return l.close(false) }

func (l *Lease) close(release bool) error {
	l.end.Do(func() {
		release = release && l.Lost() == nil
		l.result = l.keeper.Load().End(release)
		if release && l.result == nil {
			l.store.unguard() // what may be sent again must still not be, otherwise
		}
	})
	return l.result
}

// LeaseStatus is a lease at one moment.
type LeaseStatus struct {
	Owner    LeaseOwner
	Interval time.Duration
	Settle   time.Duration
	Left     time.Duration // for which requests may be sent, unless it is renewed
	Fenced   bool          // there is a way to fence another host off
	Lost     error
}

// Status tells the state of the lease.
func (l *Lease) Status() LeaseStatus {
	has, until, _ := l.keeper.Load().State()
	return LeaseStatus{
		Owner:    LeaseOwner{has.HostName, has.Host, time.Unix(has.Taken, 0), false},
		Interval: l.cfg.Interval, Settle: l.cfg.Settle, Left: max(0, until-geomlib.SinceBoot()), Fenced: l.fenced, Lost: l.Lost(),
	}
}

// leaseStore is where the lease of a volume lies.
type leaseStore struct {
	mu      sync.Mutex
	id      uint32
	members []geomlib.Provider
	places  []leasePlace
	turn    int // of members, whose sector is looked at next
	// highest is the generation that no member can be above unless another host has
	// written it; nil before the volume is open.
	highest func() uint64
	// loses is told of a flush that failed: the system tells of what was lost but once, and
	// the engine's own flushes may succeed after it. nil before the volume is open.
	loses func(p geomlib.Provider, err error)
}

// leasePlace is where the lease is written.
type leasePlace struct {
	p     geomlib.Provider
	off   int64
	fresh bool          // it is not written yet, and so not read
	until time.Duration // since boot; 0: for good
}

func newLeaseStore(a *Assembly) *leaseStore {
	s := &leaseStore{id: a.ID}
	for _, m := range a.Members {
		s.members = append(s.members, m.Provider)
	}
	return s
}

// Look is lease.Store's. It finds where the lease is by what component 0 says now.
func (s *leaseStore) Look() (f lease.Found, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	s.places = nil
	why := ErrLeaseHidden
	for _, p := range s.members {
		sector, err := readLastSector(p, true)
		if err != nil {
			return f, err
		}
		sum.Write(sector)
		m, err := ondisk.DecodeMetadata(sector)
		if err != nil || m.No != 0 || s.places != nil {
			continue
		}
		if off, room := ondisk.LeaseOffset(m, p.SectorSize()); room && off+ondisk.ExtensionSize/2 <= p.MediaSize() {
			s.places = []leasePlace{{p: p, off: off}}
		} else {
			why = ErrNoLease
		}
	}
	if s.places == nil {
		return f, why
	}
	f, err = s.read(s.places[0], nil, true)
	f.Metadata = sum.Sum64()
	return f, err
}

// Own is lease.Store's.
func (s *leaseStore) Own() (lease.Found, error) { return leaseBy{leaseStore: s}.Own() }

// Write is lease.Store's.
func (s *leaseStore) Write(l ondisk.Lease) error { return leaseBy{leaseStore: s}.Write(l) }

// leaseBy is a leaseStore whose component of that name is reached otherwise.
type leaseBy struct {
	*leaseStore
	name string
	by   geomlib.Once // or nil
}

// through is how p is reached, nil as always.
func (b leaseBy) through(p geomlib.Provider) geomlib.Once {
	if b.by != nil && p.Name() == b.name {
		return b.by
	}
	return nil
}

func (b leaseBy) Own() (f lease.Found, err error) {
	s := b.leaseStore
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(func(place leasePlace) bool { return place.until != 0 && place.until < geomlib.SinceBoot() })
	first := true
	for _, place := range s.places {
		if place.fresh {
			continue
		}
		has, err := s.read(place, b.through(place.p), false)
		if err != nil {
			return f, err
		}
		if first || has.Damaged != 0 || has.Lease.Owner != f.Lease.Owner {
			f, first = has, false
		}
	}
	if b.by == nil && s.foreign() {
		f.Damaged = 1
	}
	return f, nil
}

func (b leaseBy) Write(l ondisk.Lease) error {
	s := b.leaseStore
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, place := range s.places {
		buf := make([]byte, ondisk.LeaseBytes(place.p.SectorSize()))
		if err := l.Encode(buf); err != nil {
			return err
		}
		if err := s.writeOnce(place.p, b.through(place.p), buf, place.off); err != nil {
			return fmt.Errorf("%w: %w", ErrLeaseUnwritten, err)
		}
		s.places[i].fresh = false
	}
	return nil
}

// read is what is at a place.
func (s *leaseStore) read(place leasePlace, by geomlib.Once, fresh bool) (f lease.Found, err error) {
	buf := make([]byte, ondisk.LeaseBytes(place.p.SectorSize()))
	if err := readOnce(place.p, by, buf, place.off, fresh); err != nil {
		return f, err
	}
	l, err := ondisk.DecodeLease(buf)
	switch {
	case errors.Is(err, ondisk.ErrLeaseMagic), err == nil && l.VolumeID != s.id:
	case err != nil:
		f.Damaged = crc64.Checksum(buf, crc64.MakeTable(crc64.ECMA)) | 1
	default:
		f.Lease = l
	}
	return f, nil
}

// foreign reports whether the member whose turn it is has a generation that is not this
// owner's. s.mu is held.
func (s *leaseStore) foreign() bool {
	if s.highest == nil || len(s.members) == 0 {
		return false
	}
	s.turn = (s.turn + 1) % len(s.members)
	sector, err := readLastSector(s.members[s.turn], false)
	if err != nil {
		return false // that is not known, then
	}
	m, err := ondisk.DecodeMetadata(sector)
	return err == nil && m.ID == s.id && m.Member.Exists() && m.Member.Generation > s.highest()
}

// serves has renewals look at the members of the open volume v, too.
func (s *leaseStore) serves(v *Volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members, s.highest, s.loses, s.turn = v.providersNow(), v.life.risen.Load, v.leaseFlushFailed, 0
}

// leaveLocked has the lease written no more where leaves says so. s.mu is held.
func (s *leaseStore) leaveLocked(leaves func(leasePlace) bool) {
	s.places = slices.DeleteFunc(s.places, leaves)
}

// leave is leaveLocked; nothing is being written there any more then.
func (s *leaseStore) leave(leaves func(leasePlace) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(leaves)
}

// moveLease writes the lease where it is when p is component 0 with the metadata m, too,
// before that commits. done is called when it has.
func (v *Volume) moveLease(p geomlib.Provider, m ondisk.Metadata) (done func(), err error) {
	l := v.lease.Load()
	if l == nil {
		return func() {}, nil
	}
	off, room := ondisk.LeaseOffset(m, p.SectorSize())
	if !room {
		return nil, fmt.Errorf("%s: %w", v.name, ErrNoLease)
	}
	s := l.store
	there := func(place leasePlace) bool { return place.p == p && place.off == off }
	s.mu.Lock()
	if slices.ContainsFunc(s.places, there) {
		s.mu.Unlock()
		return func() {}, nil
	}
	s.places = append(s.places, leasePlace{p: p, off: off, fresh: true})
	s.mu.Unlock()
	if err := l.lostIs(l.keeper.Load().Renew(s)); err != nil {
		s.leave(there)
		return nil, fmt.Errorf("write the lease of %s to its next place: %w", v.name, err)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.places {
			if place := &s.places[i]; !there(*place) {
				place.until = geomlib.SinceBoot() + lease.Terms{Interval: l.cfg.Interval, Settle: l.cfg.Settle}.Term()
			}
		}
	}, nil
}

// MoveTo has the lease where it is when p is component 0 with the metadata m, and nowhere
// else: for who is about to write that, and has no volume open. It does nothing where the
// lease is there already.
func (l *Lease) MoveTo(p geomlib.Provider, m ondisk.Metadata) error {
	off, room := ondisk.LeaseOffset(m, p.SectorSize())
	if !room {
		return fmt.Errorf("%s: %w", ondisk.Printable(m.Name), ErrNoLease)
	}
	there := func(place leasePlace) bool { return place.p == p && place.off == off }
	s := l.store
	s.mu.Lock()
	if !slices.ContainsFunc(s.places, there) {
		s.places = append(s.places, leasePlace{p: p, off: off, fresh: true})
	}
	s.mu.Unlock()
	if err := l.lostIs(l.keeper.Load().Renew(s)); err != nil {
		return fmt.Errorf("write the lease of %s to its next place: %w", ondisk.Printable(m.Name), err)
	}
	s.leave(func(place leasePlace) bool { return !there(place) })
	return nil
}

// leaveOldLeases has the lease written only where it is for good: what lies where it was
// before is going to be written.
func (v *Volume) leaveOldLeases() {
	if l := v.lease.Load(); l != nil {
		l.store.leave(func(place leasePlace) bool { return place.until != 0 })
	}
}

// UseLease has the volume, which is open with DeferWrites, look at the lease from its
// activation on, which is for the providers that the lease was taken for.
func (v *Volume) UseLease(l *Lease) { v.lease.Store(l) }

// TakeLease has the volume, which is open for writing, look at a lease from now on: before
// it gets its first component that other hosts can reach. It does nothing if there is one,
// or the volume takes no writes.
func (v *Volume) TakeLease(ctx context.Context, cfg LeaseConfig) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if v.lease.Load() != nil || !v.life.writable.Load() {
		return nil
	}
	if err := v.mayChangeLocked(); err != nil {
		return fmt.Errorf("take the lease of %s: %w", v.name, err)
	}
	a := &Assembly{ID: v.id, Name: v.name}
	for _, c := range v.components() {
		a.Members = append(a.Members, Member{c.prov(), c.meta()})
	}
	l, err := a.Take(ctx, cfg)
	if err != nil {
		return err
	}
	v.startLease(l)
	v.lease.Store(l)
	for _, c := range v.components() {
		c.lease.Store(l)
	}
	return nil
}

// KeepLease has Close leave the lease for the next process of this host.
func (v *Volume) KeepLease() { v.keepLease.Store(true) }

// Lease is the lease of the volume. ok is false when it has none.
func (v *Volume) Lease() (s LeaseStatus, ok bool) {
	l := v.lease.Load()
	if l == nil || !v.life.writable.Load() {
		return LeaseStatus{}, false
	}
	return l.Status(), true
}

// startLease has l, if it is one, look at the members, and watches for its end.
func (v *Volume) startLease(l *Lease) {
	if l == nil {
		return
	}
	l.store.serves(v)
	v.life.leaseEnd = make(chan struct{})
	go func() {
		select {
		case <-v.life.leaseEnd:
		case <-l.keeper.Load().Lost():
			v.leaseLost(l.Lost())
		}
	}()
}

// followLease has the lease look at the members as they are now.
func (v *Volume) followLease() {
	if l := v.lease.Load(); l != nil && v.life.leaseEnd != nil {
		l.store.serves(v)
	}
}

// leaseFlushFailed has the component fail that is on p.
func (v *Volume) leaseFlushFailed(p geomlib.Provider, err error) {
	for _, c := range v.components() {
		if c.prov() == p {
			c.fail(err)
		}
	}
}

func (v *Volume) providersNow() (ps []geomlib.Provider) {
	for _, c := range v.components() {
		ps = append(ps, c.prov())
	}
	return ps
}

// leaseLost fails all that waits for components.
func (v *Volume) leaseLost(why error) {
	v.log.Error("another host has the volume: nothing is sent to its components any more, and it is closed", "error", why)
	for _, p := range v.providersNow() {
		if g, ok := p.(geomlib.Guarded); ok {
			g.Abandon(why)
		}
	}
	v.emit(Event{Kind: EventLeaseLost, Err: why})
}

// endLease is the end of the lease in Close: released when all went well.
func (v *Volume) endLease(well bool) error {
	l := v.lease.Load()
	if l == nil {
		return nil
	}
	if v.life.leaseEnd != nil {
		close(v.life.leaseEnd)
	}
	if well && !v.keepLease.Load() {
		return l.Close()
	}
	return l.Keep()
}

func (s *leaseStore) unguard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.members {
		unguard(p)
	}
}

// readLastSector reads the sector of the metadata, as readOnce does.
func readLastSector(p geomlib.Provider, fresh bool) ([]byte, error) {
	sector := make([]byte, p.SectorSize())
	return sector, readOnce(p, nil, sector, p.MediaSize()-int64(len(sector)), fresh)
}

// readOnce waits for no server. What is on this host is read past its caches if it is to
// be fresh: its owner has written it through them, and dropping them takes what clients
// have read, too.
func readOnce(p geomlib.Provider, by geomlib.Once, b []byte, off int64, fresh bool) error {
	if o, ok := p.(geomlib.Once); ok && by == nil {
		by = o
	}
	if by != nil {
		return by.ReadOnce(b, off)
	}
	if d, ok := p.(geomlib.CacheDropper); ok && fresh {
		if err := d.DropCache(); err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
			return err
		}
	}
	_, err := p.ReadAt(b, off)
	return err
}

// writeOnce writes through every cache, and waits for no server. s.mu is held.
func (s *leaseStore) writeOnce(p geomlib.Provider, by geomlib.Once, b []byte, off int64) error {
	if o, ok := p.(geomlib.Once); ok && by == nil {
		by = o
	}
	if by != nil {
		return by.WriteOnce(b, off)
	}
	if _, err := p.WriteAt(b, off); err != nil {
		return err
	}
	if err := p.Flush(); err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		if s.loses != nil {
			s.loses(p, err)
		}
		return err
	}
	return nil
}
