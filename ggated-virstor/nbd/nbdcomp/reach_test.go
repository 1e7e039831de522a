package nbdcomp

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// patience is for what must happen.
const patience = time.Minute

// provide opens the server's disk until the test ends.
func provide(t *testing.T, s *forgetful, o Opener) *provider {
	t.Helper()
	return provideTo(t, s, o, geomlib.OpenOptions{})
}

func provideTo(t *testing.T, s *forgetful, o Opener, opt geomlib.OpenOptions) *provider {
	t.Helper()
	o.RunDir = t.TempDir()
	if o.Timeout == 0 {
		o.Timeout = 2 * patience
	}
	p, err := o.Open(s.uri(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*provider)
}

// sectors are n sectors full of b.
func sectors(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n*sector) }

func mustWrite(t *testing.T, p geomlib.Provider, first, n int, b byte) {
	t.Helper()
	if _, err := p.WriteAt(sectors(n, b), int64(first*sector)); err != nil {
		t.Fatal(err)
	}
}

func mustFlush(t *testing.T, p geomlib.Provider) {
	t.Helper()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
}

// reads is the byte that n sectors from first on are full of.
func reads(t *testing.T, p geomlib.Provider, first, n int) byte {
	t.Helper()
	b := make([]byte, n*sector)
	if _, err := p.ReadAt(b, int64(first*sector)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, sectors(n, b[0])) {
		t.Errorf("sectors %d to %d differ", first, first+n)
	}
	return b[0]
}

// restart has the server forget and come back.
func (s *forgetful) restart() {
	s.die(nil)
	s.rise()
}

// eventually waits for what has no event of its own.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// TestEachRuleOfComingBackIsNeeded: a scene goes well, and not so when a rule is broken.
func TestEachRuleOfComingBackIsNeeded(t *testing.T) {
	for _, c := range []struct {
		name  string
		rule  rule
		scene func(t *testing.T, s *forgetful, p *provider) (wrong string)
	}{
		{"changes are done again", breakNoJournal, func(t *testing.T, s *forgetful, p *provider) string {
			mustWrite(t, p, 5, 3, 1)
			s.restart()
			return differs(reads(t, p, 5, 3), 1)
		}},
		{"so are zeroes", breakNoZeroes, func(t *testing.T, s *forgetful, p *provider) string {
			mustWrite(t, p, 5, 3, 1)
			mustFlush(t, p)
			if err := p.WriteZeroes(5*sector, 3*sector); err != nil {
				t.Fatal(err)
			}
			s.restart()
			return differs(reads(t, p, 5, 3), 0)
		}},
		{"so are trims", breakNoZeroes, func(t *testing.T, s *forgetful, p *provider) string {
			mustWrite(t, p, 5, 3, 1)
			mustFlush(t, p)
			if err := p.Delete(5*sector, 3*sector); err != nil {
				t.Fatal(err)
			}
			s.restart()
			return differs(reads(t, p, 5, 3), 0)
		}},
		{"what was flushed is read back", breakNoProof, func(t *testing.T, s *forgetful, p *provider) string {
			old := s.holds()
			mustWrite(t, p, 5, 3, 1)
			mustFlush(t, p)
			s.die(nil)
			s.putBack(old)
			s.rise()
			_, err := p.ReadAt(make([]byte, sector), 0)
			if err == nil || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "component lost flushed data") {
				return fmt.Sprintf("an older copy is read: %v", err)
			}
			if err := p.Flush(); !errors.Is(err, syscall.EIO) {
				return fmt.Sprintf("and flushed: %v", err)
			}
			return ""
		}},
		{"so is the last sector", breakNoProof, func(t *testing.T, s *forgetful, p *provider) string {
			for i := range 2 * len(p.proofs.extents) { // none is left of what came before
				mustWrite(t, p, i, 1, 9)
				mustFlush(t, p)
			}
			other := s.holds()
			copy(other[len(other)-sector:], "another component")
			s.die(nil)
			s.putBack(other)
			s.rise()
			if _, err := p.ReadAt(make([]byte, sector), 0); !errors.Is(err, errForgot) {
				return fmt.Sprintf("another component is read: %v", err)
			}
			return ""
		}},
		{"nothing is done again over a later write that is stable", breakOlder, func(t *testing.T, s *forgetful, p *provider) string {
			mustWrite(t, p, 5, 1, 1)
			mustWrite(t, p, 5, 1, 2)
			mustFlush(t, p) // which is what makes a write one with FUA
			s.restart()
			return differs(reads(t, p, 5, 1), 2)
		}},
		{"what overlaps waits", breakOverlap, overlapping},
		{"what is in doubt waits", breakNoDoubt, doubtful},
	} {
		for _, broken := range []rule{0, c.rule} {
			t.Run(fmt.Sprintf("%s/broken=%d", c.name, broken), func(t *testing.T) {
				t.Parallel()
				s := newForgetful(t, 1000)
				o := Opener{breaks: broken}
				if c.rule == breakNoDoubt {
					o.silence, o.Grace = 200*time.Millisecond, 4*time.Second
				}
				wrong := c.scene(t, s, provide(t, s, o))
				if (wrong == "") != (broken == 0) {
					t.Errorf("noticed: %q", wrong)
				}
			})
		}
	}
}

func differs(is, want byte) string {
	if is != want {
		return fmt.Sprintf("%d is read, and not %d", is, want)
	}
	return ""
}

// overlapping has a server do two writes in the other order if it has both. What is read
// then must be read again when it has come back.
func overlapping(t *testing.T, s *forgetful, p *provider) string {
	second := make(chan struct{})
	var came, done atomic.Int32
	s.hook(hooks{
		before: func(r proto.Request) uint32 {
			if r.Type == proto.CmdWrite && came.Add(1) == 1 {
				select {
				case <-second:
				case <-time.After(time.Second): // it does not come
				}
			}
			return 0
		},
		after: func(r proto.Request) {
			if r.Type == proto.CmdWrite && done.Add(1) == 1 {
				close(second)
			}
		},
	})
	var both sync.WaitGroup
	both.Go(func() { mustWrite(t, p, 5, 1, 1) })
	eventually(t, "the first is there", func() bool { return came.Load() == 1 })
	both.Go(func() { mustWrite(t, p, 5, 1, 2) })
	both.Wait()
	s.hook(hooks{})
	was := reads(t, p, 5, 1)
	s.restart()
	return differs(reads(t, p, 5, 1), was)
}

// doubtful has a server do a write late that was sent on a connection which was given up:
// before what is asked of servers, or, if it is not waited for, after another write.
func doubtful(t *testing.T, s *forgetful, p *provider) string {
	release := make(chan struct{})
	once := sync.OnceFunc(func() { close(release) })
	var came, done atomic.Int32
	s.hook(hooks{
		before: func(r proto.Request) uint32 {
			if r.Type == proto.CmdWrite && came.Add(1) == 1 {
				<-release
			}
			return 0
		},
		after: func(r proto.Request) {
			if r.Type == proto.CmdWrite {
				done.Add(1)
			}
		},
	})
	var first sync.WaitGroup
	first.Go(func() { mustWrite(t, p, 5, 1, 1) })
	t.Cleanup(once)
	eventually(t, "it is given up", func() bool { r := p.Reach(); return r.Away > 0 || r.Regained > 0 })
	time.AfterFunc(p.set.grace/2, once)
	first.Wait()
	mustWrite(t, p, 5, 1, 2)
	once()
	eventually(t, "all are done", func() bool { return done.Load() >= 3 })
	return differs(reads(t, p, 5, 1), 2)
}

// TestNothingAcknowledgedIsLostByAServerThatForgets: clients of their own ranges write,
// zero, trim, flush and read while the server dies and comes back; none is told of an
// error, and each reads what it had done last.
func TestNothingAcknowledgedIsLostByAServerThatForgets(t *testing.T) {
	const clients, each, rounds = 4, 32, 400
	s := newForgetful(t, clients*each+1)
	p := provide(t, s, Opener{Grace: time.Millisecond, limit: slabSize})
	var left atomic.Int32
	left.Store(clients)
	var all sync.WaitGroup
	want := make([]byte, clients*each)
	for c := range clients {
		all.Go(func() {
			defer left.Add(-1)
			mine := want[c*each : (c+1)*each]
			rng := rand.New(rand.NewPCG(1, uint64(c)))
			for i := range rounds {
				first := rng.IntN(each)
				n := 1 + rng.IntN(each-first)
				if err := someDeed(p, rng, mine, c*each, first, n, byte(1+i%255)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 100))
	deaths := 0
	for ; left.Load() > 0; deaths++ {
		s.die(func(int) bool { return rng.IntN(2) == 0 })
		s.rise()
		before := s.count(proto.CmdWrite) + s.count(proto.CmdRead)
		eventually(t, "something is asked", func() bool { return left.Load() == 0 || s.count(proto.CmdWrite)+s.count(proto.CmdRead) > before+20 })
	}
	all.Wait()
	mustFlush(t, p)
	s.restart()
	for i, b := range want {
		if is := reads(t, p, i, 1); is != b {
			t.Errorf("sector %d holds %d, want %d", i, is, b)
		}
	}
	t.Logf("%d deaths, %d flushes", deaths, s.count(proto.CmdFlush))
}

// someDeed does something to n sectors of a client, from its first on, and notes it in
// mine, or reads them.
func someDeed(p *provider, rng *rand.Rand, mine []byte, at, first, n int, b byte) error {
	off, length := int64((at+first)*sector), int64(n*sector)
	var err error
	switch rng.IntN(6) {
	case 0:
		b, err = 0, p.WriteZeroes(off, length)
	case 1:
		b, err = 0, p.Delete(off, length)
	case 2:
		return p.Flush()
	case 3:
		_, err = p.WriteAt(sectors(n, b), off)
	case 4:
		_, err = started{p}.WriteAt(sectors(n, b), off)
	default:
		got := make([]byte, length)
		if rng.IntN(2) == 0 {
			_, err = started{p}.ReadAt(got, off)
		} else {
			_, err = p.ReadAt(got, off)
		}
		for i := 0; i < n && err == nil; i++ {
			if !bytes.Equal(got[i*sector:(i+1)*sector], sectors(1, mine[first+i])) {
				err = fmt.Errorf("sector %d of the client at %d holds %d, want %d", first+i, at, got[i*sector], mine[first+i])
			}
		}
		return err
	}
	for i := range n {
		mine[first+i] = b
	}
	return err
}

func TestWhatIsAwayForTooLongFailsAndComesBack(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{Timeout: 300 * time.Millisecond, silence: patience})
	mustWrite(t, p, 5, 1, 1)
	s.die(nil)
	begin := time.Now()
	_, err := p.ReadAt(make([]byte, sector), 0)
	if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "not reached for 300ms") || !strings.Contains(err.Error(), "connect") {
		t.Errorf("read: %v", err)
	}
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("failed after %v", took)
	}
	if err := p.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	if _, err := p.WriteAt(sectors(1, 2), 6*sector); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v", err)
	}
	if r := p.Reach(); r.Away < 200*time.Millisecond || r.Gone || r.Regained != 0 || r.Unflushed == 0 {
		t.Errorf("reach: %+v", r)
	}
	s.rise()
	eventually(t, "it is back", func() bool { return p.Reach().Away == 0 })
	if is := reads(t, p, 5, 1); is != 1 {
		t.Errorf("what was acknowledged reads %d", is)
	}
	if is := reads(t, p, 6, 1); is != 0 {
		t.Errorf("what failed at once reads %d", is)
	}
	mustFlush(t, p)
	if r := p.Reach(); r.Regained != 1 || r.Unflushed != 0 {
		t.Errorf("reach: %+v", r)
	}
}

func TestAServerThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{silence: 100 * time.Millisecond, Grace: time.Millisecond})
	for _, kind := range []uint16{proto.CmdRead, proto.CmdWrite, proto.CmdFlush, proto.CmdTrim} {
		var came atomic.Int32
		release := make(chan struct{})
		s.hook(hooks{before: func(r proto.Request) uint32 {
			if r.Type == kind && came.Add(1) == 1 {
				<-release
			}
			return 0
		}})
		was := p.Reach().Regained
		reads(t, p, 7, 1)
		mustWrite(t, p, 7, 1, 3)
		mustFlush(t, p)
		if err := p.Delete(7*sector, sector); err != nil {
			t.Fatal(err)
		}
		if p.Reach().Regained == was {
			t.Errorf("%d was not asked again", kind)
		}
		close(release)
	}
}

// TestTheJournalIsBounded: at its bound writes wait for a flush, and reads do not.
func TestTheJournalIsBounded(t *testing.T) {
	s := newForgetful(t, 10000)
	p := provide(t, s, Opener{limit: 2 * slabSize})
	flushing, release := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(flushing) })
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdFlush {
			once()
			<-release
		}
		return 0
	}})
	var writes sync.WaitGroup
	writes.Go(func() {
		for i := range 8 {
			mustWrite(t, p, i*1024, 1024, byte(i+1)) // half a slab each
		}
	})
	<-flushing
	if is := reads(t, p, 0, 1024); is != 1 {
		t.Errorf("%d is read", is)
	}
	if r := p.Reach(); r.Unflushed > 2*slabSize {
		t.Errorf("%d bytes are kept", r.Unflushed)
	}
	close(release)
	writes.Wait()
	for i := range 8 {
		if is := reads(t, p, i*1024, 1024); is != byte(i+1) {
			t.Errorf("write %d reads %d", i, is)
		}
	}
}

// TestAJournalThatFillsIsEmptiedBesideTheWrites: they do not wait for the flush, and need
// no memory that is not used already.
func TestAJournalThatFillsIsEmptiedBesideTheWrites(t *testing.T) {
	s := newForgetful(t, 20000)
	p := provide(t, s, Opener{limit: 8 * slabSize})
	flushing, release := make(chan struct{}, 9), make(chan struct{})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdFlush {
			flushing <- struct{}{}
			<-release
		}
		return 0
	}})
	mustWrite(t, p, 0, 2048, 1)
	select {
	case <-flushing:
		t.Error("a flush of an eighth")
	default:
	}
	mustWrite(t, p, 2048, 2048, 2)
	<-flushing
	for i := range 6 {
		mustWrite(t, p, (2+i)*2048, 2048, byte(3+i))
	}
	if n := p.Reach().Unflushed; n != 8*slabSize {
		t.Errorf("%d bytes are kept", n)
	}
	release <- struct{}{}
	eventually(t, "the first quarter is not kept any more", func() bool { return p.Reach().Unflushed <= 6*slabSize })
	mustWrite(t, p, 0, 1, 9) // six have come since
	<-flushing
	s.hook(hooks{})
	close(release)
	eventually(t, "all is flushed", func() bool { return p.Reach().Unflushed <= slabSize })
	for i := range 100 {
		mustWrite(t, p, i*128, 128, 9)
		mustFlush(t, p)
	}
	if n := s.count(proto.CmdFlush) - 100; n > 4 {
		t.Errorf("%d flushes that nobody asked for", n)
	}
}

// TestAFlushBesideTheWritesThatFailsIsTold: to whoever flushes next, and the writes go on.
func TestAFlushBesideTheWritesThatFailsIsTold(t *testing.T) {
	s := newForgetful(t, 20000)
	said := make(chan string, 9)
	p := provide(t, s, Opener{limit: 8 * slabSize, Log: slog.New(slog.NewTextHandler(tells(said), nil))})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdFlush {
			return proto.EIO
		}
		return 0
	}})
	mustWrite(t, p, 0, 2048, 1)
	mustWrite(t, p, 2048, 2048, 2)
	eventually(t, "the flush has failed", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.untold != nil
	})
	if line := <-said; !strings.Contains(line, "may have lost") || !strings.Contains(line, p.Name()) {
		t.Errorf("said: %s", line)
	}
	s.hook(hooks{})
	mustWrite(t, p, 4096, 1, 3)
	if err := p.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	mustFlush(t, p)
}

// TestAGoodbyeIsSaidWhenAllIsAnswered: a flush that nobody asked for, too.
func TestAGoodbyeIsSaidWhenAllIsAnswered(t *testing.T) {
	s := newForgetful(t, 20000)
	p := provide(t, s, Opener{limit: 4 * slabSize})
	flushing, release := make(chan struct{}), make(chan struct{})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdFlush {
			close(flushing)
			<-release
		}
		return 0
	}})
	mustWrite(t, p, 0, 2048, 1)
	<-flushing
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	eventually(t, "closing waits", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.waiting > 0 && p.reach == reached
	})
	close(release)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if n := p.journal.count; n != 0 {
		t.Errorf("%d changes were not known to be flushed", n)
	}
}

// TestMemoryIsShared: who finds none left goes on by flushing what is its own, or with one
// change at a time.
func TestMemoryIsShared(t *testing.T) {
	memory := NewMemory(slabSize)
	var ps []*provider
	var disks []*forgetful
	for range 3 {
		s := newForgetful(t, 6*2048+1)
		disks, ps = append(disks, s), append(ps, provide(t, s, Opener{Memory: memory}))
	}
	mustWrite(t, ps[0], 0, 256, 7) // which takes the only slab
	for i, p := range ps[1:] {
		for j := range 6 {
			mustWrite(t, p, j*2048, 2048, byte(j))
		}
		if n := disks[i+1].count(proto.CmdFlush); n < 5 {
			t.Errorf("%d flushes to write what there is no memory for", n)
		}
	}
	for _, s := range disks {
		s.restart()
	}
	if is := reads(t, ps[0], 0, 256); is != 7 {
		t.Errorf("%d is read", is)
	}
	for _, p := range ps[1:] {
		if is := reads(t, p, 5*2048, 2048); is != 5 {
			t.Errorf("%d is read", is)
		}
	}
	for _, p := range ps {
		mustFlush(t, p)
	}
	if memory.used != 0 {
		t.Errorf("%d bytes are used by nobody", memory.used)
	}
}

// TestWhatCannotBeDoneAgainFailsTheNextFlush: it was acknowledged, and is lost.
func TestWhatCannotBeDoneAgainFailsTheNextFlush(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	mustWrite(t, p, 5, 1, 1)
	s.die(nil)
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdWrite {
			return proto.ENOSPC
		}
		return 0
	}})
	s.rise()
	if is := reads(t, p, 5, 1); is != 0 {
		t.Errorf("%d is read", is)
	}
	if err := p.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v", err)
	}
	mustFlush(t, p)
}

// TestAFlushThatFailsIsTold: to whoever flushes next, where nobody had asked for it.
func TestAFlushThatFailsIsTold(t *testing.T) {
	s := newForgetful(t, 5000)
	p := provide(t, s, Opener{limit: slabSize})
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdFlush {
			return proto.EIO
		}
		return 0
	}})
	mustWrite(t, p, 0, 2048, 1)
	if _, err := p.WriteAt(sectors(2048, 2), 2048*sector); !errors.Is(err, syscall.EIO) {
		t.Errorf("a write that needs room: %v", err)
	}
	s.hook(hooks{})
	if err := p.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	mustFlush(t, p)
	mustWrite(t, p, 2048, 2048, 2)
}

// TestAServerThatIsLostBeforeAnythingWasFlushedIsGone: what was read until then may be lost.
func TestAServerThatIsLostBeforeAnythingWasFlushedIsGone(t *testing.T) {
	s := newForgetful(t, 1000)
	s.hook(hooks{before: func(r proto.Request) uint32 {
		if r.Type == proto.CmdFlush {
			return proto.EIO
		}
		return 0
	}})
	p := provide(t, s, Opener{})
	reads(t, p, 5, 1)
	s.restart()
	if _, err := p.ReadAt(make([]byte, sector), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	if r := p.Reach(); !r.Gone || r.Away == 0 {
		t.Errorf("reach: %+v", r)
	}
	if err := p.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
}

func TestAnExportOfAnotherSizeIsNeverWrittenTo(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	mustWrite(t, p, 5, 1, 1)
	s.die(nil)
	s.mu.Lock()
	s.now, s.stable = make([]byte, 2000*sector), make([]byte, 2000*sector)
	s.mu.Unlock()
	s.rise()
	if err := p.Flush(); !errors.Is(err, errForgot) {
		t.Errorf("flush: %v", err)
	}
	if !bytes.Equal(s.holds(), make([]byte, 2000*sector)) {
		t.Error("something was written to it")
	}
}

// TestAServerThatOffersLessIsWaitedFor: it is the same disk, and may be exported again as
// it was.
func TestAServerThatOffersLessIsWaitedFor(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	mustWrite(t, p, 5, 1, 1)
	flags := s.flags
	s.die(nil)
	s.offer(flags &^ proto.SendFlush)
	s.rise()
	eventually(t, "it is found out", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.cause != nil && strings.Contains(p.cause.Error(), "otherwise")
	})
	s.die(nil)
	s.offer(flags)
	s.rise()
	if is := reads(t, p, 5, 1); is != 1 {
		t.Errorf("%d is read", is)
	}
}

// TestWhoIsAwayIsClosedAtOnce: and nothing waits for it.
func TestWhoIsAwayIsClosedAtOnce(t *testing.T) {
	s := newForgetful(t, 1000)
	p := provide(t, s, Opener{})
	mustWrite(t, p, 5, 1, 1)
	s.die(nil)
	failed := make(chan error, 1)
	go func() { failed <- p.Flush() }()
	eventually(t, "it waits", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.waiting == 1
	})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
}

// TestWhoOnlyReadsIsServedAgain: also where the server knows no flush.
func TestWhoOnlyReadsIsServedAgain(t *testing.T) {
	s := newForgetful(t, 1000)
	s.offer(s.flags&^proto.SendFlush | proto.SendReadOnly)
	p, err := Opener{RunDir: t.TempDir(), Timeout: 2 * patience}.Open(s.uri(), geomlib.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		if is := reads(t, p, 5, 1); is != 0 {
			t.Errorf("%d is read", is)
		}
		s.restart()
	}
}

// tells is a log whose lines somebody reads.
type tells chan string

func (c tells) Write(b []byte) (int, error) {
	c <- string(b)
	return len(b), nil
}
