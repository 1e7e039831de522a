package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Store is where the lease is, reached past every cache. Requests that fail may be done
// all the same, now or later, but are not repeated by it.
type Store interface {
	// Look reads the metadata, and then the lease.
	Look() (Found, error)
	// Own reads the lease alone, for its owner, wherever it is; the first that is not
	// like the owner left it.
	Own() (Found, error)
	// Write writes the lease wherever it is, and flushes it.
	Write(l ondisk.Lease) error
}

// Errors of a Keeper.
var (
	// ErrRefused: somebody else has the lease, and is alive.
	ErrRefused = errors.New("another host has the lease")
	// ErrLost: somebody else has, or had, written where the lease was.
	ErrLost = errors.New("another host has taken the lease")
	// errLate: the lease was not written in time, and can be again.
	errLate = errors.New("the lease could not be renewed in time")
	// errEnded: it is not renewed any more.
	errEnded = errors.New("the lease was given back")
)

// Environment is what a Keeper works with.
type Environment struct {
	Store Store
	Now   func() Time
	// Fence has whoever wrote what was found fenced off; nil: there is no way to.
	Fence func(ctx context.Context, f Found) error
	// Told, if not nil, is told of each State while the lease is being taken, with what
	// was found, and until when that lasts.
	Told func(s State, f Found, until Time)
	// Failed, if not nil, is told when renewals begin to fail, and when requests may not be
	// sent any more, be it that a renewal has no answer. It may be called by two goroutines at
	// once.
	Failed func(err error)
}

// Keeper has a lease, and renews it until it is told to end, or another has it. Its
// methods may be called by many goroutines at once.
type Keeper struct {
	env Environment

	until atomic.Int64 // Machine.Deadline; negative: lost

	turn sync.Mutex // held by who reads and writes the lease
	mu   sync.Mutex
	m    Machine
	// renewed is closed at the next renewal, or when the lease is lost.
	renewed chan struct{}

	lost chan struct{} // closed when it is
	stop context.CancelFunc
	done chan struct{}
}

// Take takes the lease me, and returns when it has it. Waiting for another's ends with
// ctx. It fails with ErrRefused, or with what reading, writing or fencing failed with: it
// may then be there, and has to be waited for.
func Take(ctx context.Context, me ondisk.Lease, o Options, env Environment) (*Keeper, error) {
	o.Fences = env.Fence != nil
	k := &Keeper{env: env, m: New(me, o), renewed: make(chan struct{}), lost: make(chan struct{}), done: make(chan struct{})}
	for k.m.Deadline() <= env.Now() {
		if err := k.advance(ctx); err != nil {
			return nil, err
		}
	}
	k.until.Store(int64(k.m.Deadline()))
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	go k.keep(ctx)
	return k, nil
}

// advance does one step of taking.
func (k *Keeper) advance(ctx context.Context) error {
	m, env := &k.m, &k.env
	a := m.Next(env.Now())
	if env.Told != nil {
		env.Told(m.State(), m.Seen(), m.Until())
	}
	switch a.Deed {
	case Sleep:
		return sleep(ctx, a.At-env.Now())
	case Look:
		sent := env.Now()
		f, err := env.Store.Look()
		if err != nil {
			return fmt.Errorf("read the lease: %w", err)
		}
		m.HasLooked(sent, env.Now(), f)
	case Fence:
		if err := env.Fence(ctx, m.Seen()); err != nil {
			return fmt.Errorf("fence off who has the lease: %w", err)
		}
		m.HasFenced()
	case Write:
		m.HasSent()
		sent := env.Now()
		if sent > a.At {
			return nil
		}
		if err := env.Store.Write(a.Lease); err != nil {
			return fmt.Errorf("write the lease: %w", err)
		}
		m.HasWritten(sent, env.Now())
	case Stop:
		return ErrRefused
	}
	return ctx.Err()
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// keep renews until ctx ends or the lease is lost.
func (k *Keeper) keep(ctx context.Context) {
	defer close(k.done)
	if k.env.Failed != nil {
		var watching sync.WaitGroup
		watching.Go(func() { k.watch(ctx) })
		defer watching.Wait()
	}
	failing := false
	for {
		k.mu.Lock()
		a := k.m.Next(k.env.Now())
		k.mu.Unlock()
		switch a.Deed {
		case Stop:
			return
		case Sleep:
			if sleep(ctx, a.At-k.env.Now()) != nil {
				return
			}
		default:
			err := k.Renew(k.env.Store)
			if err != nil && !failing && k.env.Failed != nil && !errors.Is(err, ErrLost) {
				k.env.Failed(err)
			}
			failing = err != nil
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// watch tells of the deadlines that pass, until ctx ends or the lease is lost. A renewal that
// hangs tells nothing.
func (k *Keeper) watch(ctx context.Context) {
	for {
		k.mu.Lock()
		until, renewed, lost := k.m.Deadline(), k.renewed, k.m.State() == Lost
		k.mu.Unlock()
		if lost {
			return
		}
		late := time.NewTimer(until - k.env.Now())
		select {
		case <-renewed:
			late.Stop()
			continue
		case <-ctx.Done():
			late.Stop()
			return
		case <-late.C:
		}
		if k.env.Now() < until {
			continue
		}
		k.env.Failed(fmt.Errorf("%w: nothing is sent to any component until it is", errLate))
		select {
		case <-renewed:
		case <-ctx.Done():
			return
		}
	}
}

// Renew reads the lease by s, and writes it again. It fails with ErrLost when another has
// it.
func (k *Keeper) Renew(s Store) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	sent := k.env.Now()
	f, err := s.Own()
	a, err := k.looked(sent, f, err)
	if err != nil {
		return err
	}
	sent = k.env.Now()
	if err := k.mayWrite(sent, a); err != nil {
		return err
	}
	if err := s.Write(a.Lease); err != nil {
		return k.failed(fmt.Errorf("write the lease: %w", err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m.HasWritten(sent, k.env.Now())
	k.until.Store(int64(k.m.Deadline()))
	k.tellLocked()
	return nil
}

// looked takes what the owner's look found, and returns the writing that follows.
func (k *Keeper) looked(sent Time, f Found, err error) (Action, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.env.Now()
	if k.m.State() == Lost {
		return Action{}, ErrLost
	}
	if err != nil {
		k.m.HasFailed(now)
		return Action{}, fmt.Errorf("read the lease: %w", err)
	}
	if k.m.HasLooked(sent, now, f); k.m.State() == Lost {
		k.loseLocked()
		return Action{}, ErrLost
	}
	a := k.m.Next(now)
	if a.Deed != Write {
		k.m.HasFailed(now)
		return Action{}, errLate
	}
	k.m.HasSent()
	return a, nil
}

// mayWrite looks once more before the writing a is sent: it may be late by now, and another
// may have the lease.
func (k *Keeper) mayWrite(now Time, a Action) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.m.State() == Lost:
		return ErrLost
	case now > a.At:
		k.m.HasFailed(now)
		return errLate
	}
	return nil
}

func (k *Keeper) failed(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m.HasFailed(k.env.Now())
	return err
}

// Lose ends it, because something else says that another host has the volume. No writing of
// the lease is sent any more.
func (k *Keeper) Lose(f Found) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m.State() != Lost {
		k.m.seen, k.m.state = f, Lost
		k.loseLocked()
	}
}

// loseLocked is the end. k.mu is held.
func (k *Keeper) loseLocked() {
	k.until.Store(-1)
	close(k.lost)
	k.tellLocked()
}

// tellLocked wakes those who wait. k.mu is held.
func (k *Keeper) tellLocked() {
	close(k.renewed)
	k.renewed = make(chan struct{})
}

// MaySend reports whether requests may be sent now.
func (k *Keeper) MaySend() bool { return int64(k.env.Now()) < k.until.Load() }

// Wait returns when MaySend is true again. It fails with ErrLost, or with errLate after
// the time limit.
func (k *Keeper) Wait(limit time.Duration) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		k.mu.Lock()
		renewed := k.renewed
		k.mu.Unlock()
		select {
		case <-k.lost:
			return ErrLost
		default:
		}
		if k.MaySend() {
			return nil
		}
		select {
		case <-renewed:
		case <-end.C:
			return errLate
		case <-k.done:
			select {
			case <-k.lost:
				return ErrLost
			default:
				return errEnded
			}
		}
	}
}

// Lost is closed when another has the lease.
func (k *Keeper) Lost() <-chan struct{} { return k.lost }

// State is the lease as it was written last, and until when requests may be sent; with
// what took it away, if it is lost.
func (k *Keeper) State() (l ondisk.Lease, until Time, by Found) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m.me, k.m.Deadline(), k.m.Seen()
}

// End stops renewing. With release, and if there is time to, it writes that the lease has
// no owner any more.
func (k *Keeper) End(release bool) error {
	k.stop()
	<-k.done
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	l, at, ok := k.m.Release(k.env.Now())
	if k.m.State() != Lost {
		k.m.state = Refused
	}
	k.until.Store(min(k.until.Load(), 0))
	k.tellLocked()
	k.mu.Unlock()
	if !release || !ok || k.env.Now() > at {
		return nil
	}
	if err := k.env.Store.Write(l); err != nil {
		return fmt.Errorf("release the lease: %w", err)
	}
	return nil
}
