package nbdcomp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// watchman is a Guard that says what it is told to.
type watchman struct {
	forbids atomic.Bool
	lost    atomic.Bool
	asked   atomic.Int64
}

var errTaken = fmt.Errorf("%w: host b has it", geomlib.ErrLeaseLost)

func (g *watchman) MaySend() bool { return !g.forbids.Load() && !g.lost.Load() }

func (g *watchman) Wait() error {
	if g.lost.Load() {
		return errTaken
	}
	g.forbids.Store(false)
	return nil
}

func (g *watchman) Regained(_ context.Context, p geomlib.Guarded, by geomlib.Once) error {
	g.asked.Add(1)
	if err := by.ReadOnce(make([]byte, sector), 0); err != nil {
		return err
	}
	if g.lost.Load() {
		return errTaken
	}
	return nil
}

// What was sent before is written again only when the guard has been asked on the new
// connection, and never when the lease is lost.
func TestNothingIsDoneAgainWhenTheLeaseIsLost(t *testing.T) {
	for _, breaks := range []rule{0, breakNoGuard} {
		s := newForgetful(t, 64)
		p := provide(t, s, Opener{breaks: breaks})
		g := new(watchman)
		p.Guard(g)
		mustFlush(t, p)
		mustWrite(t, p, 5, 3, 1)
		g.lost.Store(true)
		s.restart()
		if breaks != 0 {
			eventually(t, "it is written again", func() bool { return bytes.Equal(s.holds()[5*sector:8*sector], sectors(3, 1)) })
			continue
		}
		if _, err := p.ReadAt(make([]byte, sector), 0); !errors.Is(err, geomlib.ErrLeaseLost) {
			t.Errorf("reading afterwards: %v", err)
		}
		if !bytes.Equal(s.holds()[5*sector:8*sector], sectors(3, 0)) || g.asked.Load() == 0 {
			t.Errorf("written again, after %d questions", g.asked.Load())
		}
	}
}

func TestAChangeWaitsForTheGuardAndAReadingDoesNot(t *testing.T) {
	s := newForgetful(t, 64)
	p := provide(t, s, Opener{})
	g := new(watchman)
	p.Guard(g)
	mustFlush(t, p)
	g.forbids.Store(true)
	if _, err := p.ReadAt(make([]byte, sector), 0); err != nil || g.MaySend() {
		t.Errorf("reading: %v", err)
	}
	mustWrite(t, p, 5, 3, 1)
	if !g.MaySend() {
		t.Error("the guard was not waited for")
	}
	g.lost.Store(true)
	if _, err := p.WriteAt(sectors(1, 2), 5*sector); !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("writing without a lease: %v", err)
	}
	if got := s.holds()[5*sector : 8*sector]; !bytes.Equal(got, sectors(3, 1)) {
		t.Errorf("the server has %x", got[:8])
	}
}

// What is asked once is in no journal, and waits for no server.
func TestWhatIsAskedOnceIsNotDoneAgain(t *testing.T) {
	s := newForgetful(t, 64)
	p := provide(t, s, Opener{})
	mustFlush(t, p)
	if err := p.WriteOnce(sectors(1, 7), 3*sector); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, sector)
	if err := p.ReadOnce(b, 3*sector); err != nil || b[0] != 7 {
		t.Errorf("%d, %v", b[0], err)
	}
	if n := p.Reach().Unflushed; n != 0 {
		t.Errorf("%d bytes are kept", n)
	}
	s.die(nil)
	eventually(t, "it is lost", func() bool { return p.Reach().Away > 0 })
	if err := p.WriteOnce(sectors(1, 8), 3*sector); !errors.Is(err, errLost) {
		t.Errorf("writing to a server that is away: %v", err)
	}
	if err := p.ReadOnce(b, 3*sector); !errors.Is(err, errLost) {
		t.Errorf("reading from a server that is away: %v", err)
	}
	s.rise()
	eventually(t, "it is there again", func() bool { return p.Reach().Away == 0 })
	if err := p.ReadOnce(b, 3*sector); err != nil || b[0] != 7 {
		t.Errorf("%d, %v", b[0], err)
	}
}

// What is asked once may lie over what was flushed before, as a lease does that has moved:
// a server that comes back with it has lost nothing.
func TestWhatIsAskedOnceIsNoLossOfWhatLayThere(t *testing.T) {
	s := newForgetful(t, 64)
	p := provide(t, s, Opener{})
	mustWrite(t, p, 2, 6, 1)
	mustWrite(t, p, 20, 1, 2)
	mustFlush(t, p)
	if err := p.WriteOnce(sectors(1, 7), 3*sector); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if b := reads(t, p, 3, 1); b != 7 {
		t.Errorf("%d is read", b)
	}
	// Of all else it is still asked.
	older := s.holds()
	copy(older[20*sector:], sectors(1, 0))
	s.die(nil)
	s.putBack(older)
	s.rise()
	if _, err := p.ReadAt(make([]byte, sector), 0); !errors.Is(err, errForgot) {
		t.Errorf("an older copy is read: %v", err)
	}
}

func TestWhoIsAbandonedFailsWhatWaits(t *testing.T) {
	s := newForgetful(t, 64)
	p := provide(t, s, Opener{})
	mustFlush(t, p)
	s.die(nil)
	eventually(t, "it is lost", func() bool { return p.Reach().Away > 0 })
	ended := make(chan error)
	go func() {
		_, err := p.ReadAt(make([]byte, sector), 0)
		ended <- err
	}()
	p.Abandon(errTaken)
	if err := <-ended; !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("what waited: %v", err)
	}
	s.rise()
	if _, err := p.WriteAt(sectors(1, 1), 0); !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("what came later: %v", err)
	}
}

// The server is there, and does not end the connections.
func TestWhoIsAbandonedIsClosed(t *testing.T) {
	s := newForgetful(t, 64)
	p := provide(t, s, Opener{})
	mustFlush(t, p)
	held := make(chan struct{})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		<-held
		return 0
	}})
	defer close(held)
	ended := make(chan error)
	go func() {
		_, err := p.WriteAt(sectors(1, 1), 0)
		ended <- err
	}()
	eventually(t, "it is on its way", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.journal.flying) > 0 && p.journal.flying[0].sent
	})
	p.Abandon(errTaken)
	if err := <-ended; !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("what was on its way: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
