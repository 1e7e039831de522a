package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

// LeaseOptions are how leases are taken of volumes whose components other hosts can reach.
type LeaseOptions struct {
	Interval, Settle time.Duration // as in virstor.LeaseConfig
	Host             [16]byte      // of this host
	HostName         string
	// TakeOver are the names of volumes whose other host is dead, as somebody says.
	TakeOver []string
	// Fencer has another host fenced off; nil: there is no way to.
	Fencer Fencer
}

// Fencer keeps a host from the components of a volume. A supervisor may stand behind it.
type Fencer interface {
	// Fence returns when nothing that the host has sent, or will send, reaches them any
	// more. An error forbids to take its lease.
	Fence(ctx context.Context, v publish.Fenced) error
}

// leasing is the taking of the lease of one volume, whose local lock is held.
type leasing struct {
	name    string
	members []geomlib.Provider
	lock    io.Closer
	task    *publish.Task

	waits chan struct{} // closed when another's lease is waited for
	done  chan struct{} // closed when lease or err is there
	lease *virstor.Lease
	err   error

	mu    sync.Mutex
	owner virstor.LeaseOwner
	until time.Time
}

// waiting says what is waited for, and how long.
func (t *leasing) waiting() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("waiting for the lease of %v, %d s", t.owner, max(0, int(time.Until(t.until).Round(time.Second)/time.Second)))
}

// tell takes note of whose lease is waited for.
func (t *leasing) tell(owner virstor.LeaseOwner, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.until.IsZero() {
		close(t.waits)
	}
	t.owner, t.until = owner, until
}

// errLeaseWaits: the lease is another host's, and is waited for.
var errLeaseWaits = errors.New("waiting for the lease of another host")

// claim locks a volume, and takes its lease if it needs one; it is then to be opened as
// what is returned. errLeaseWaits: that takes long, and goes on; then the volume is served.
// d.verbs is held.
func (d *Daemon) claim(a *virstor.Assembly) (io.Closer, *virstor.Lease, *virstor.Assembly, error) {
	t := d.leasings[a.ID]
	if t != nil && !t.isOf(a) {
		d.dropLeasing(a.ID)
		t = nil
	}
	if t == nil {
		lock, err := d.opener.LockVolume(a.ID)
		switch {
		case err != nil:
		case d.opt.ReadOnly:
			err = d.mayRead(a, lock)
		case !a.NeedsLease():
			err = d.mayServeAlone(a, lock)
		}
		if err != nil || d.opt.ReadOnly || !a.NeedsLease() {
			return lock, nil, a, err
		}
		t = d.startLeasing(a, lock)
		d.mu.Lock()
		d.leasings[a.ID] = t
		d.mu.Unlock()
	}
	select {
	case <-t.done:
	case <-t.waits:
		select {
		case <-t.done:
		default:
			return nil, nil, nil, fmt.Errorf("%w: %s", errLeaseWaits, t.waiting())
		}
	}
	d.forgetLeasing(a.ID)
	if t.err != nil {
		return nil, nil, nil, errors.Join(d.leaseRefusal(a, t.err), t.lock.Close())
	}
	again, err := a.Again()
	if err != nil {
		return nil, nil, nil, errors.Join(err, t.lease.Close(), t.lock.Close())
	}
	return t.lock, t.lease, again, nil
}

// mayRead refuses to read beside another host that writes. It gives lock back then.
func (d *Daemon) mayRead(a *virstor.Assembly, lock io.Closer) error {
	if slices.Contains(d.opt.ForceOld, a.Name) {
		return nil
	}
	return refuseLeased(a, lock, ownLease(lock), func(owner virstor.LeaseOwner) error {
		return fmt.Errorf("%w: %v: what is read may be torn (--force-old %s)", virstor.ErrLeased, owner, ondisk.Printable(a.Name))
	})
}

// mayServeAlone refuses a volume that a host has the lease of, be it this one, though nobody
// has said that its components are shared: it would be served without renewing that, and who
// waits for it elsewhere would take it over. It gives lock back then.
func (d *Daemon) mayServeAlone(a *virstor.Assembly, lock io.Closer) error {
	if slices.Contains(d.opt.Lease.TakeOver, a.Name) {
		return nil
	}
	return refuseLeased(a, lock, 0, func(owner virstor.LeaseOwner) error {
		return fmt.Errorf("%w: %v: serve it with --shared, which waits for the lease, or, if that host is dead for certain, with --takeover %s",
			virstor.ErrLeased, owner, ondisk.Printable(a.Name))
	})
}

// ownLease is the one that a daemon of this host had last, by the volume's lock.
func ownLease(lock io.Closer) uint64 {
	if m, ok := lock.(geomlib.LeaseMemory); ok {
		return m.LastLease()
	}
	return 0
}

// refuseLeased refuses what somebody has the lease of, but own, and gives lock back then.
func refuseLeased(a *virstor.Assembly, lock io.Closer, own uint64, refusal func(virstor.LeaseOwner) error) error {
	owner, leased, err := a.Leased(own)
	switch {
	case errors.Is(err, virstor.ErrNoLease), err == nil && !leased:
		return nil
	case err == nil:
		err = refusal(owner)
	}
	return errors.Join(err, lock.Close())
}

// leaseRefusal adds what to do.
func (d *Daemon) leaseRefusal(a *virstor.Assembly, err error) error {
	switch {
	case errors.Is(err, virstor.ErrLeased):
		return fmt.Errorf("%w and renews it: stop the volume there first", err)
	case errors.Is(err, virstor.ErrLeaseUnwritten):
		return fmt.Errorf("%w: nothing would keep another host from the volume: mend what component 0 is on, or serve what there is with --read-only", err)
	}
	return err
}

func (t *leasing) isOf(a *virstor.Assembly) bool {
	return slices.EqualFunc(a.Members, t.members, func(m virstor.Member, p geomlib.Provider) bool { return m.Provider == p })
}

// startLeasing takes a lease, by a task that goes on when d.verbs is given back.
func (d *Daemon) startLeasing(a *virstor.Assembly, lock io.Closer) *leasing {
	t := &leasing{name: a.Name, lock: lock, waits: make(chan struct{}), done: make(chan struct{})}
	for _, m := range a.Members {
		t.members = append(t.members, m.Provider)
	}
	cfg := d.leaseConfig(a, lock)
	cfg.Waits = t.tell
	t.task = publish.StartTask(func(ctx context.Context) {
		t.lease, t.err = a.Take(ctx, cfg)
		close(t.done)
		select {
		case <-t.waits:
		default:
			return // claim is there still
		}
		if ctx.Err() == nil {
			d.later.Go(d.serveLeased)
		}
	})
	return t
}

// serveLeased serves what waited for its lease.
func (d *Daemon) serveLeased() {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	if d.ended {
		return
	}
	_, problems := d.assemble(nil)
	for _, p := range problems {
		d.log.Error("not served", "volume", p.Volume, "reason", p.Reason)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// What is wrong with a provider that is open to nobody is as it was.
	d.problems = append(slices.DeleteFunc(d.problems, func(p control.Problem) bool { return p.ID != 0 }), problems...)
}

// leaseConfig is how the lease of a is taken by who holds lock.
func (d *Daemon) leaseConfig(a *virstor.Assembly, lock io.Closer) virstor.LeaseConfig {
	o := d.opt.Lease
	cfg := virstor.LeaseConfig{Interval: o.Interval, Settle: o.Settle, Host: o.Host, HostName: o.HostName,
		TakeOver: slices.Contains(o.TakeOver, a.Name),
		Failed: func(err error) {
			d.log.Warn("the lease of the volume is not renewed", "volume", a.Name, "error", err)
		},
	}
	if m, ok := lock.(geomlib.LeaseMemory); ok {
		cfg.Last, cfg.Note = m.LastLease(), m.NoteLease
	}
	if o.Fencer != nil {
		v := publish.Fenced{Name: a.Name, ID: a.ID, Components: providersOf(a)}
		cfg.Fence = func(ctx context.Context, owner virstor.LeaseOwner) error {
			v.Host, v.HostID = owner.HostName, fmt.Sprintf("%x", owner.Host)
			d.log.Warn("fencing off who has the lease of the volume", "volume", a.Name, "host", owner.String())
			return o.Fencer.Fence(ctx, v)
		}
	}
	return cfg
}

// forgetLeasing takes out what is done.
func (d *Daemon) forgetLeasing(id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.leasings, id)
}

// dropLeasing gives up a lease that is being taken. d.verbs is held.
func (d *Daemon) dropLeasing(id uint32) {
	t := d.leasings[id]
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	t.task.Stop(ctx)
	d.forgetLeasing(id)
	var err error
	select {
	case <-t.done:
		if t.lease != nil {
			err = t.lease.Close()
		}
	default: // it hangs
	}
	if err = errors.Join(err, t.lock.Close()); err != nil {
		d.log.Warn("the lease of the volume is not given back", "volume", t.name, "error", err)
	}
}

// leaseProblems are the problems as they are now: how long is waited changes.
func (d *Daemon) leaseProblems(problems []control.Problem) []control.Problem {
	for i := range problems {
		if t := d.leasings[uint32(problems[i].ID)]; t != nil {
			problems[i].Reason = t.waiting()
		}
	}
	return problems
}

// changeLeased does change to a volume that nobody serves, whose local lock is held, under
// its lease if it needs one.
func (d *Daemon) changeLeased(a *virstor.Assembly, lock io.Closer, change func(*virstor.Assembly) error) (err error) {
	if !a.NeedsLease() {
		return change(a)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	cfg := d.leaseConfig(a, lock)
	cfg.Waits = func(owner virstor.LeaseOwner, _ time.Time) {
		cancel(fmt.Errorf("%w: %v", virstor.ErrLeased, owner))
	}
	lease, err := a.Take(ctx, cfg)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	again, err := a.Again()
	if err != nil {
		return err
	}
	return change(again)
}

// mayAdd refuses providers that cannot become components of a volume in service. Before the
// first that other hosts can reach the volume has a lease.
func (d *Daemon) mayAdd(ctx context.Context, s *served, ps []geomlib.Provider) error {
	if err := s.mayAdd(ctx, ps); err != nil {
		return err
	}
	reached := func(p geomlib.Provider) bool { _, ok := p.(geomlib.Guarded); return ok }
	if _, has := s.vol.Lease(); has || !slices.ContainsFunc(ps, reached) {
		return nil
	}
	a := &virstor.Assembly{ID: s.vol.ID(), Name: s.vol.Name()}
	for _, p := range s.vol.Providers() {
		a.Members = append(a.Members, virstor.Member{Provider: p})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cfg := d.leaseConfig(a, s.lock)
	cfg.Waits = func(owner virstor.LeaseOwner, _ time.Time) {
		cancel(fmt.Errorf("%w: %v", virstor.ErrLeased, owner))
	}
	if err := s.vol.TakeLease(ctx, cfg); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}

// takeActivationLease takes the lease of a volume that is about to be activated with ps.
func (d *Daemon) takeActivationLease(ctx context.Context, s *served, ps []geomlib.Provider) (*virstor.Lease, error) {
	var members []virstor.Member
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			return nil, err
		}
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	a := &virstor.Assembly{ID: s.vol.ID(), Name: s.vol.Name(), Members: members}
	if !a.NeedsLease() {
		return nil, nil
	}
	return a.Take(ctx, d.leaseConfig(a, s.lock))
}

// lost ends the service of a volume that another host has now: all at once, and nothing is
// flushed. What it was is not continued: it would be opened again from its disks.
func (d *Daemon) lost(s *served, why error) {
	d.verbs.Lock()
	defer d.verbs.Unlock()
	d.mu.Lock()
	name := s.vol.Name()
	here := d.volumes[name] == s
	d.mu.Unlock()
	if !here {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := d.takeDown(ctx, s, true); control.KindOf(err) == control.Busy {
		err = s.leave(ctx, false)
		d.log.Warn("a device of the volume is still open, and fails what it is asked", "volume", name, "error", err)
		d.mu.Lock()
		delete(d.volumes, name)
		d.mu.Unlock()
	}
	if err := s.close(ctx, false); err != nil {
		d.log.Info("closed without the lease", "volume", name, "error", err)
	}
	p := control.Problem{Volume: name, ID: ondisk.VolumeID(s.vol.ID()), Reason: why.Error() + ": it was closed here at once"}
	d.mu.Lock()
	d.problems = append(d.problems, p)
	d.mu.Unlock()
	d.hub.Publish(control.Event{Time: time.Now(), Volume: name, Kind: "lease-lost", Text: fmt.Sprintf("%s: %v", name, why)})
}

// Waiting is how many volumes wait for the lease of another host.
func (d *Daemon) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.leasings)
}
