package nbdcomp

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// gatedFlushes are those that a server holds: each comes as a channel of what it is answered.
type gatedFlushes struct{ came chan chan uint32 }

func gateFlushes(s *forgetful) gatedFlushes {
	g := gatedFlushes{make(chan chan uint32, 16)}
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type != proto.CmdFlush {
			return 0
		}
		answer := make(chan uint32)
		g.came <- answer
		return <-answer
	}})
	return g
}

// A server tells one flush of what was lost: no other that was under way with it succeeds.
func TestAFlushFailsWithOneThatIsUnderWayBesideIt(t *testing.T) {
	for what, begin := range map[string]func(t *testing.T, p *provider) (wait func()){
		"a journal that fills": func(t *testing.T, p *provider) func() {
			mustWrite(t, p, 0, 2048, 1)
			mustWrite(t, p, 2048, 2048, 2)
			return func() {}
		},
		"a lease": func(t *testing.T, p *provider) func() {
			var ended sync.WaitGroup
			ended.Go(func() {
				if err := p.WriteOnce(sectors(1, 7), 0); !errors.Is(err, syscall.EIO) {
					t.Errorf("the lease is written: %v", err)
				}
			})
			return ended.Wait
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newForgetful(t, 20000)
			told := make(chan string, 9)
			p := provideTo(t, s, Opener{limit: 8 * slabSize}, geomlib.OpenOptions{FlushFails: func(name string) { told <- name }})
			mustWrite(t, p, 5000, 1, 3)
			g := gateFlushes(s)
			wait := begin(t, p)
			beside := <-g.came
			flushed := make(chan error, 1)
			go func() { flushed <- p.Flush() }()
			(<-g.came) <- 0
			eventually(t, "the flush waits for the other", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return len(p.flushes.running) == 1 && p.waiting > 0
			})
			beside <- proto.EIO
			if err := <-flushed; !errors.Is(err, syscall.EIO) {
				t.Errorf("flush: %v", err)
			}
			wait()
			if name := <-told; name != s.uri() {
				t.Errorf("told of %s", name)
			}
			s.hook(hooks{})
			mustFlush(t, p)
		})
	}
}

// Also if this process dies before anybody flushes.
func TestAFlushBesideTheWritesThatFailsIsKnownAfterADeath(t *testing.T) {
	s := newForgetful(t, 20000)
	told := make(chan string, 9)
	p := provideTo(t, s, Opener{limit: 8 * slabSize}, geomlib.OpenOptions{FlushFails: func(name string) { told <- name }})
	g := gateFlushes(s)
	mustWrite(t, p, 0, 2048, 1)
	mustWrite(t, p, 2048, 2048, 2)
	(<-g.came) <- proto.EIO
	if name := <-told; name != s.uri() {
		t.Errorf("told of %s", name)
	}
}

// What was said to be done, and is refused when it is done again, fails the flush that waited
// for that, and is known after a death.
func TestAFlushFailsWhenWhatWasWrittenIsRefusedMeanwhile(t *testing.T) {
	s := newForgetful(t, 64)
	told := make(chan string, 9)
	p := provideTo(t, s, Opener{}, geomlib.OpenOptions{FlushFails: func(name string) { told <- name }})
	mustWrite(t, p, 5, 3, 1)
	g := gateFlushes(s)
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush() }()
	lost := <-g.came
	s.die(nil)
	lost <- 0
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdWrite {
			return proto.ENOSPC
		}
		return 0
	}})
	s.rise()
	if err := <-flushed; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v", err)
	}
	if len(told) == 0 {
		t.Error("nobody else knows")
	}
	s.hook(hooks{})
	mustFlush(t, p)
}

func TestAFlushWaitsForNoneThatBeganAfterItsAnswer(t *testing.T) {
	f := flushes{running: []uint64{4, 7}, last: 7}
	if got := []bool{f.underWay(3), f.underWay(4), f.underWay(6)}; !slices.Equal(got, []bool{false, true, true}) {
		t.Errorf("under way: %v", got)
	}
}

// A change that was never sent is taken back while what was refused is told of: its entry is
// somebody else's then, and leads to none.
func TestWhatIsDoneAgainIsNotLookedForBehindWhatWasTakenBack(t *testing.T) {
	s := newForgetful(t, 64)
	var p *provider
	var taken *entry
	p = provideTo(t, s, Opener{}, geomlib.OpenOptions{FlushFails: func(string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if taken != nil {
			p.withdrawLocked(taken)
			taken = nil
		}
	}})
	for i := range 3 { // entries of which two are used again, and one lies behind them
		mustWrite(t, p, 10+i, 1, 9)
	}
	mustFlush(t, p)
	mustWrite(t, p, 5, 3, 1)
	var err error
	if taken, err = p.begin(kindWrite, 20*sector, sector); err != nil {
		t.Fatal(err)
	}
	s.die(nil)
	again := make(chan uint64, 9)
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdWrite {
			again <- r.Offset
			return proto.ENOSPC
		}
		return 0
	}})
	s.rise()
	if err := p.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v", err)
	}
	for range len(again) {
		if off := <-again; off != 5*sector {
			t.Errorf("written again at %d", off)
		}
	}
}
