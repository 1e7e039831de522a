package nbdcomp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
)

// reach is how the server is reached.
//
//	          a connection is lost          after the time limit
//	reached ───────────────────────► away ───────────────────────► late
//	   ▲                              │                              │
//	   └──── all is written again ────┴──────────────────────────────┘
//
// Requests wait while it is away, and fail while it is late. It is gone for good when it
// turns out to have lost what it had flushed, or is lost before the first flush of an
// opening has succeeded: what was read until then may be lost as well.
type reach uint8

const (
	reached reach = iota
	away
	late
	gone
	closed
)

var (
	errLost   = fmt.Errorf("the connection to the server was lost: %w", syscall.EIO)
	errClosed = fmt.Errorf("closed: %w", errLost)
)

// link is the session that there is, or what is done to have one again.
type link struct {
	mu      sync.Mutex
	changed sync.Cond // something of what follows; told only while somebody waits
	waiting int

	reach    reach
	session  *session
	watcher  func()    // of reach, or nil
	why      error     // what requests fail with while it is late, gone or closed
	since    time.Time // when the session before was lost
	cause    error     // why no attempt has worked
	regained uint64    // how often it was reached again
	proven   bool      // a flush has succeeded since the opening

	lost   chan struct{} // capacity 1: to be reached again
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

func (l *link) init() {
	l.changed.L, l.lost = &l.mu, make(chan struct{}, 1)
	l.ctx, l.cancel = context.WithCancel(context.Background())
}

// waitLocked waits until something has changed. l.mu is held.
func (l *link) waitLocked() {
	l.waiting++
	l.changed.Wait()
	l.waiting--
}

// tellLocked wakes those who wait. l.mu is held.
func (l *link) tellLocked() {
	if l.waiting > 0 {
		l.changed.Broadcast()
	}
}

// reachLocked waits for a session. l.mu is held.
func (l *link) reachLocked() (*session, error) {
	for l.reach == away {
		l.waitLocked()
	}
	if l.reach != reached {
		return nil, l.why
	}
	return l.session, nil
}

// open is reachLocked.
func (l *link) open() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reachLocked()
}

// enterLocked begins to be reached by s. l.mu is held, or nobody else knows l.
func (l *link) enterLocked(s *session) {
	l.reach, l.session, l.cause, l.why = reached, s, nil, nil
	for _, c := range s.conns {
		l.tasks.Go(func() {
			<-c.Done()
			l.leave(s)
		})
	}
	l.turnedLocked()
}

// turnedLocked tells all that reach is another. l.mu is held.
func (l *link) turnedLocked() {
	l.tellLocked()
	if l.watcher != nil {
		l.watcher()
	}
}

// leave notes that s is lost.
func (l *link) leave(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reach != reached || l.session != s {
		return
	}
	silence := time.Duration(s.silence.Load())
	l.reach, l.since, l.cause = away, time.Now().Add(-silence), nil
	if silence > 0 {
		l.cause = fmt.Errorf("a request had no answer for %v", silence.Round(time.Millisecond))
	}
	if !l.proven {
		l.reach, l.why = gone, fmt.Errorf("before anything was flushed: %w", errLost)
	}
	l.turnedLocked()
	l.lost <- struct{}{} // of each session once, and it is taken before the next
}

// endLocked is the end: requests fail because of why. l.mu is held.
func (l *link) endLocked(r reach, why error) {
	l.reach, l.why = r, why
	l.turnedLocked()
}

const (
	// firstPause and lastPause are how long the next attempt waits, twice as long each time.
	firstPause = 50 * time.Millisecond
	lastPause  = 3 * time.Second
)

// keep has the server reached again whenever it is lost, until the provider is closed.
func (p *provider) keep() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.lost:
			p.regain()
		}
	}
}

// regain makes attempts until one works, the server turns out to be another, or the
// provider is closed.
func (p *provider) regain() {
	p.mu.Lock()
	old, since, ends := p.session, p.since, p.reach == gone
	p.mu.Unlock()
	p.settle(old)
	if ends {
		p.set.log.Error("component is lost while it is opened", "component", p.name)
		return
	}
	p.set.log.Warn("component is not reached: requests wait", "component", p.name)
	limit := time.AfterFunc(time.Until(since.Add(p.set.timeout)), p.tooLate)
	defer limit.Stop()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		n, err := p.attempt()
		switch {
		case err == nil:
			p.set.log.Info("component is reached again", "component", p.name, "after", time.Since(since).Round(time.Millisecond), "again", n)
			return
		case errors.Is(err, errForgot), errors.Is(err, geomlib.ErrLeaseLost):
			p.mu.Lock()
			p.endLocked(gone, err)
			p.mu.Unlock()
			p.set.log.Error("component failed for good", "component", p.name, "error", err)
			return
		}
		p.mu.Lock()
		p.cause = err
		p.mu.Unlock()
		select {
		case <-p.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// settle gives a session up, and notes until when what was sent on it may be done.
func (p *provider) settle(s *session) {
	if s.giveUp() && p.set.breaks&breakNoDoubt == 0 {
		p.doubt = time.Now().Add(p.set.grace)
	}
}

// tooLate has requests fail, and the attempts go on.
func (p *provider) tooLate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reach != away {
		return
	}
	why := fmt.Errorf("not reached for %v: %w", p.set.timeout, errLost)
	if p.cause != nil {
		why = fmt.Errorf("%w (%w)", why, p.cause)
	}
	p.endLocked(late, why)
	p.set.log.Error("component is not reached in time: requests fail", "component", p.name, "error", why)
}

// attempt connects, makes sure of the server, does again what that may have lost, and lets
// requests go on. It returns how much was done again.
func (p *provider) attempt() (n int, err error) {
	s, err := connectAll(p.ctx, p.by, p.uri)
	if err != nil {
		return 0, err
	}
	s.max = p.max
	defer context.AfterFunc(p.ctx, func() { _ = s.reset() })()
	p.tasks.Go(func() { s.watch(p.ctx, p.set.silence) })
	if err = p.recognize(s); errors.Is(err, errForgot) {
		// Another host that has it now has changed it.
		if lost := p.allows(p.ctx, s); errors.Is(lost, geomlib.ErrLeaseLost) {
			err = lost
		}
	}
	if err == nil {
		err = p.awaitDoubt()
	}
	if err == nil {
		err = p.allows(p.ctx, s)
	}
	if err == nil {
		n, err = p.again(s)
	}
	if err != nil {
		p.settle(s)
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reach == closed || p.reach == gone {
		return 0, errors.Join(p.why, s.reset())
	}
	p.journal.sweep()
	p.regained++
	p.enterLocked(s)
	return n, nil
}

// recognize makes sure that s leads to what there was before.
func (p *provider) recognize(s *session) error {
	is := offerOf(s.conns[0])
	switch {
	case is.Size != p.offer.Size:
		return fmt.Errorf("%s: %d bytes, and not %d: %w", p.name, is.Size, p.offer.Size, errForgot)
	case !p.offer.same(is):
		return fmt.Errorf("%s: the server offers the export otherwise than before: %s, and now %s", p.name, p.offer, is)
	case p.set.breaks&breakNoProof != 0:
		return nil
	}
	p.mu.Lock()
	all := p.proofs.list()
	p.mu.Unlock()
	return p.prove(s, all)
}

// awaitDoubt waits until nothing of an old connection is done any more.
func (p *provider) awaitDoubt() error {
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-time.After(time.Until(p.doubt)):
		return nil
	}
}
