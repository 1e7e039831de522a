package nbdcomp

import (
	"context"
	"errors"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

var _ geomlib.Guarded = (*provider)(nil)

// Guard is geomlib.Guarded's.
func (p *provider) Guard(g geomlib.Guard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guard = g
}

// Abandon is geomlib.Guarded's. What was to be sent is not sent later.
func (p *provider) Abandon(why error) {
	p.mu.Lock()
	was, s := p.reach, p.session
	if was != closed && was != gone {
		p.endLocked(gone, why)
	}
	p.mu.Unlock()
	if was == reached {
		_ = s.reset() // it is of no more use, whatever that says
	}
}

// guarded is who is to be asked, or nil.
func (p *provider) guarded() geomlib.Guard {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guard
}

// ReadOnce is geomlib.Once's.
func (p *provider) ReadOnce(b []byte, off int64) error {
	if err := p.check("read", off, int64(len(b))); err != nil {
		return err
	}
	s, err := p.now()
	if err == nil {
		err = single{p, s}.ReadOnce(b, off)
	}
	return err
}

// WriteOnce is geomlib.Once's.
func (p *provider) WriteOnce(b []byte, off int64) error {
	if err := p.checkWrite("write", off, int64(len(b))); err != nil {
		return err
	}
	s, err := p.now()
	if err == nil {
		err = single{p, s}.WriteOnce(b, off)
	}
	return err
}

// now is the session that there is.
func (p *provider) now() (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.reach == reached:
		return p.session, nil
	case p.reach == away:
		return nil, p.failed("ask", 0, 0, errLost)
	}
	return nil, p.why
}

// single is p by one session alone. What it writes is in no journal.
type single struct {
	p *provider
	s *session
}

func (o single) ReadOnce(b []byte, off int64) error {
	if err := o.s.read(b, off); err != nil {
		return o.lost(o.p.failed("read", off, int64(len(b)), err))
	}
	return nil
}

func (o single) WriteOnce(b []byte, off int64) error {
	o.p.mu.Lock()
	o.p.proofs.forget(off, int64(len(b))) // what was there before may be one's
	o.p.mu.Unlock()
	err := o.s.change(kindWrite, off, int64(len(b)), b)
	if err == nil {
		err = o.p.flushOn(o.s)
	}
	if err != nil {
		return o.lost(o.p.failed("write", off, int64(len(b)), err))
	}
	return nil
}

// lost takes note of a session that is lost. One that p has not got yet is its maker's.
func (o single) lost(err error) error {
	if errors.Is(err, nbdclient.ErrClosed) {
		o.p.leave(o.s)
	}
	return err
}

// allowedLocked waits for a session on which something may be changed now. p.mu is held,
// but for that time.
func (p *provider) allowedLocked() (*session, error) {
	for {
		s, err := p.reachLocked()
		if err != nil || p.guard == nil || p.guard.MaySend() {
			return s, err
		}
		g := p.guard
		p.mu.Unlock()
		err = g.Wait()
		p.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
}

// allows asks the guard before anything is written on s, which p has not got yet.
func (p *provider) allows(ctx context.Context, s *session) error {
	g := p.guarded()
	if g == nil || p.readOnly || p.set.breaks&breakNoGuard != 0 {
		return nil
	}
	return g.Regained(ctx, p, single{p, s})
}

// mayRepeat asks the guard before something is done again. It does not wait: the next
// attempt asks again.
func (p *provider) mayRepeat() error {
	if g := p.guarded(); g != nil && !g.MaySend() && p.set.breaks&breakNoGuard == 0 {
		return errForbidden
	}
	return nil
}

var errForbidden = errors.New("nothing may be sent now")
