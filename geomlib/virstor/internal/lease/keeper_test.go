package lease

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// shelf is a Store in memory, which two hosts can have.
type shelf struct {
	mu     sync.Mutex
	lease  ondisk.Lease
	writes int
	fails  error
}

func (s *shelf) Look() (Found, error) { return s.Own() }

func (s *shelf) Own() (Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Found{Lease: s.lease}, s.fails
}

func (s *shelf) Write(l ondisk.Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return s.fails
	}
	s.lease = l
	s.writes++
	return nil
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
}

// counted is a shelf that sets a counter to two at each look.
type counted struct {
	*shelf
	looked *atomic.Int32
}

func (c counted) Own() (Found, error) {
	c.looked.Store(2)
	return c.shelf.Own()
}

func mine(owner uint64) ondisk.Lease {
	return ondisk.Lease{Owner: owner, Interval: 5 * time.Second, Settle: time.Minute}
}

func environment(s Store) Environment {
	start := time.Now()
	return Environment{Store: s, Now: func() Time { return time.Since(start) + time.Hour }}
}

func take(t *testing.T, s Store, owner uint64, o Options) *Keeper {
	t.Helper()
	k, err := Take(t.Context(), mine(owner), o, environment(s))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestALeaseThatNobodyHasIsTakenAfterAQuarterOfAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, start := new(shelf), time.Now()
		k := take(t, s, 1, Options{})
		if took := time.Since(start); took != 1250*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := s.writes; n < 12 || n > 15 || !k.MaySend() {
			t.Errorf("written %d times in a minute, may send: %t", n, k.MaySend())
		}
		if err := k.End(true); err != nil || !s.lease.Released || k.MaySend() {
			t.Errorf("%v, %+v, may send: %t", err, s.lease, k.MaySend())
		}
	})
}

func TestADeadHostsLeaseIsTakenAfterTwoTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, start := &shelf{lease: mine(7)}, time.Now()
		s.lease.Sequence = 3
		k := take(t, s, 1, Options{})
		term := Terms{5 * time.Second, time.Minute}.Term()
		if took := time.Since(start); took != 2*term {
			t.Errorf("it took %v, a term is %v", took, term)
		}
		if err := k.End(false); err != nil || s.lease.Released {
			t.Errorf("%v, %+v", err, s.lease)
		}
	})
}

func TestALivingHostsLeaseIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		k := take(t, s, 1, Options{})
		var told []State
		env := environment(s)
		env.Told = func(s State, f Found, until Time) { told = append(told, s) }
		if _, err := Take(t.Context(), mine(2), Options{}, env); !errors.Is(err, ErrRefused) || len(told) < 3 {
			t.Errorf("%v, told %v", err, told)
		}
		if err := k.End(true); err != nil || s.lease.Owner != 1 {
			t.Errorf("%v, %+v", err, s.lease)
		}
	})
}

func TestTheOwnLeaseIsContinuedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, start := &shelf{lease: mine(1)}, time.Now()
		s.lease.Sequence = 9
		k := take(t, s, 1, Options{Continues: true})
		if took := time.Since(start); took != 0 || s.lease.Sequence != 10 {
			t.Errorf("it took %v: %+v", took, s.lease)
		}
		if err := k.End(false); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherIsFencedOffBeforeItsLeaseIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{lease: mine(7)}
		env := environment(s)
		bad := errors.New("no route to the fence")
		env.Fence = func(ctx context.Context, f Found) error {
			if l, known := f.Owner(); l.Owner != 7 || !known {
				t.Errorf("fenced %+v", l)
			}
			return bad
		}
		if _, err := Take(t.Context(), mine(1), Options{Hurry: true}, env); !errors.Is(err, bad) || s.writes > 0 {
			t.Errorf("%v, written %d times", err, s.writes)
		}
		start := time.Now()
		bad = nil
		k, err := Take(t.Context(), mine(1), Options{Hurry: true}, env)
		if err != nil || time.Since(start) > 2*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if err := k.End(true); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingIsSentWhileTheLeaseCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		k := take(t, s, 1, Options{})
		s.fail(errors.New("not reached"))
		time.Sleep(9 * time.Second)
		if !k.MaySend() {
			t.Error("not even for two intervals")
		}
		time.Sleep(7 * time.Second)
		if k.MaySend() {
			t.Error("after three intervals it may still send")
		}
		if err := k.Wait(time.Second); !errors.Is(err, errLate) {
			t.Error(err)
		}
		time.AfterFunc(time.Second, func() { s.fail(nil) })
		if err := k.Wait(time.Minute); err != nil || !k.MaySend() {
			t.Errorf("when it is there again: %v", err)
		}
		if err := k.End(true); err != nil {
			t.Error(err)
		}
	})
}

// hung is a shelf whose owner has no answer until there is one.
type hung struct {
	*shelf
	answers chan error
}

func (h hung) Own() (Found, error) {
	if err := <-h.answers; err != nil {
		return Found{}, err
	}
	return h.shelf.Own()
}

// TestALeaseThatRunsOutIsTold: at that instant, though the renewal has no answer; with the
// reason when it has; and of each time again.
func TestALeaseThatRunsOutIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type notice struct {
			at  time.Duration
			err error
		}
		var mu sync.Mutex
		var told []notice
		s, gone := hung{new(shelf), make(chan error)}, errors.New("given up")
		env, start := environment(s), time.Now()
		env.Failed = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, notice{time.Since(start), err})
		}
		k, err := Take(t.Context(), mine(1), Options{}, env)
		if err != nil {
			t.Fatal(err)
		}
		expect := func(when string, want ...error) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(told) != len(want) {
				t.Fatalf("%s it was told %v", when, told)
			}
			for i := range want {
				if !errors.Is(told[i].err, want[i]) || told[i].at != time.Since(start) {
					t.Errorf("%s it was told %v, want %v at %v", when, told, want, time.Since(start))
				}
			}
			told = nil
		}
		for range 2 {
			_, until, _ := k.State()
			time.Sleep(until - env.Now() - time.Nanosecond)
			expect("before the deadline")
			time.Sleep(time.Nanosecond)
			expect("at the deadline", errLate)
			time.Sleep(time.Minute)
			expect("while nothing comes")
			s.answers <- gone
			expect("when the look has failed", gone)
			time.Sleep(time.Second)
			s.answers <- nil
			synctest.Wait()
			if !k.MaySend() {
				t.Error("it is not renewed by the next look")
			}
		}
		close(s.answers)
		time.Sleep(time.Hour)
		expect("while it is renewed")
		if err := k.End(true); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		expect("when it has ended")
	})
}

// TestALeaseThatIsLostIsToldOfNoMore: who hears of it by Lost needs no more.
func TestALeaseThatIsLostIsToldOfNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		env := environment(s)
		env.Failed = func(err error) { t.Errorf("told %v", err) }
		k, err := Take(t.Context(), mine(1), Options{}, env)
		if err != nil {
			t.Fatal(err)
		}
		k.Lose(Found{Metadata: 5})
		time.Sleep(time.Hour)
		if err := k.End(true); err != nil {
			t.Error(err)
		}
	})
}

func TestALeaseThatAnotherHasWrittenIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		k := take(t, s, 1, Options{})
		if err := s.Write(mine(2)); err != nil {
			t.Fatal(err)
		}
		<-k.Lost()
		if err := k.Wait(time.Minute); !errors.Is(err, ErrLost) || k.MaySend() {
			t.Errorf("%v, may send: %t", err, k.MaySend())
		}
		if _, _, by := k.State(); by.Lease.Owner != 2 {
			t.Errorf("lost to %+v", by)
		}
		if err := k.End(true); err != nil || s.lease != mine(2) {
			t.Errorf("%v, %+v", err, s.lease)
		}
	})
}

func TestALeaseIsLostToWhoeverHasTheVolumeByOtherSigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		k := take(t, s, 1, Options{})
		k.Lose(Found{Metadata: 5})
		<-k.Lost()
		if _, until, by := k.State(); until != 0 || by.Metadata != 5 || k.MaySend() {
			t.Errorf("may send until %v, %+v", until, by)
		}
		if err := k.Renew(s); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		if err := k.End(true); err != nil || s.lease.Released {
			t.Errorf("%v, %+v", err, s.lease)
		}
	})
}

// TestARenewalWritesNothingWhenTheLeaseIsLostMeanwhile: the newcomer writes, and the owner
// hears of it, between his look and his writing.
func TestARenewalWritesNothingWhenTheLeaseIsLostMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		var k *Keeper
		var looked atomic.Int32 // the clock is read when the look is over, and before the writing
		env := environment(s)
		now := env.Now
		env.Now = func() Time {
			if looked.Load() > 0 && looked.Add(-1) == 0 {
				if err := s.Write(mine(2)); err != nil {
					t.Error(err)
				}
				k.Lose(Found{Lease: mine(2)})
			}
			return now()
		}
		var err error
		if k, err = Take(t.Context(), mine(1), Options{}, env); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := k.Renew(counted{s, &looked}); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		if l, err := s.Own(); err != nil || l.Lease != mine(2) {
			t.Errorf("the newcomer's lease is now %+v, %v", l, err)
		}
		if err := k.End(true); err != nil || s.lease != mine(2) {
			t.Errorf("%v, %+v", err, s.lease)
		}
	})
}

func TestWaitingForALeaseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := &shelf{lease: mine(7)}
		if _, err := Take(ctx, mine(1), Options{}, environment(s)); !errors.Is(err, context.DeadlineExceeded) || s.writes > 0 {
			t.Errorf("%v, written %d times", err, s.writes)
		}
	})
}
