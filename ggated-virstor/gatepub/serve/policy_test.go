package serve

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// load lets n requests of a client that has several under way go by on a policy.
// Each takes inline when a receiver serves it, deferred when the workers do; deferred
// ones overlap. It counts those that were served inline.
func load(a *servePolicy, now *time.Duration, n int, inline, deferred func(i int) time.Duration) (count int) {
	only := true
	for i := range n {
		if a.straight(false) || a.inline(*now, only) {
			count++
			*now += inline(i)
			only = true // what a receiver has served is done when the next is taken
		} else {
			*now += deferred(i)
			only = false
		}
	}
	return count
}

// lone lets n requests of a client that waits for each go by on a policy, and counts
// those that were served straight.
func lone(a *servePolicy, now *time.Duration, n int, slow bool, took func(i int) time.Duration) (count int) {
	for i := range n {
		if a.straight(slow) {
			count++
		} else {
			a.inline(*now, true)
		}
		*now += took(i)
	}
	return count
}

func always(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

func newPolicy(standIns int32) *servePolicy {
	a := new(servePolicy)
	a.standIns.Store(standIns)
	return a
}

const us = time.Microsecond

func TestWhoServesMoreServes(t *testing.T) {
	for _, c := range []struct {
		name             string
		inline, deferred time.Duration // per request
		want             bool
	}{
		{"from memory", 10 * us, 18 * us, true},
		{"one at a time from flash", 90 * us, 95 * us, true},
		{"many from flash", 90 * us, 12 * us, false},
		{"many from a disk that turns", 5000 * us, 320 * us, false},
		{"from memory on a slow processor", 250 * us, 600 * us, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 100_000
			var now time.Duration
			count := load(newPolicy(1), &now, n, always(c.inline), always(c.deferred))
			if c.want && count < n*98/100 || !c.want && count > n*2/100 {
				t.Errorf("receivers served %d of %d requests", count, n)
			}
			best := n * min(c.inline, c.deferred)
			if now > best*105/100 {
				t.Errorf("it took %v, and would the better way throughout %v", now, best)
			}
		})
	}
}

// TestAClientThatWaitsForEachRequestIsServedStraight, whatever the clock would say: each way
// of serving is disturbed for a while in turn.
func TestAClientThatWaitsForEachRequestIsServedStraight(t *testing.T) {
	for _, slow := range []bool{false, true} {
		a := newPolicy(1)
		var now time.Duration
		noisy := func(i int) time.Duration { return time.Duration(1+i/100%2*50) * 100 * us }
		const n = 100_000
		want := n * 995 / 1000
		if slow {
			want = n * 85 / 100
		}
		if count := lone(a, &now, n, slow, noisy); count < want {
			t.Errorf("slow %t: %d of %d requests were served straight", slow, count, n)
		}
	}
}

// TestALoneClientThatGetsCompanyIsNoticed, and one that is alone again.
func TestALoneClientThatGetsCompanyIsNoticed(t *testing.T) {
	a := newPolicy(1)
	var now time.Duration
	lone(a, &now, 200_000, false, always(10*us))
	const many = 4 * lastPatience
	if n := load(a, &now, many, always(5000*us), always(320*us)); n > lastPatience+trialWindows*windowLength {
		t.Errorf("receivers served %d of %d requests of several under way", n, many)
	}
	if n := lone(a, &now, 1000, false, always(10*us)); n < 1000-2*windowLength {
		t.Errorf("%d of 1000 requests of a client that is alone again were served straight", n)
	}
	// It takes its time, and for that it is looked at sooner.
	n := 0
	for a.phase == alone && n < lastPatience {
		a.straight(true)
		n++
	}
	if n > slowPatience {
		t.Errorf("after %d slow requests nobody has looked", n)
	}
}

// TestOneRequestOfAnotherMakesNoCrowd: somebody else's now and then leaves a client what
// it is.
func TestOneRequestOfAnotherMakesNoCrowd(t *testing.T) {
	a := newPolicy(1)
	var now time.Duration
	straight := 0
	const n = 100_000
	for i := range n {
		if a.straight(false) {
			straight++
		} else {
			a.inline(now, i%1000 != 3)
		}
		now += 10 * us
	}
	if straight < n*98/100 {
		t.Errorf("%d of %d requests were served straight", straight, n)
	}
}

func TestADiskThatBecomesSlowOrQuickIsNoticed(t *testing.T) {
	a := newPolicy(1)
	var now time.Duration
	load(a, &now, 100_000, always(3*us), always(10*us))
	begun := now
	if n := load(a, &now, 2*lastInterval, always(5000*us), always(320*us)); n > soonest+lastInterval/64 {
		t.Errorf("receivers served %d slow requests, %v", n, now-begun)
	}
	if n := load(a, &now, 4*lastInterval, always(3*us), always(10*us)); n < 2*lastInterval {
		t.Errorf("receivers served only %d of %d requests that were quick again", n, 4*lastInterval)
	}
}

// TestAClientThatPausesMisleadsNobody: what it waits is not the disk's.
func TestAClientThatPausesMisleadsNobody(t *testing.T) {
	pausing := func(d time.Duration) func(int) time.Duration {
		return func(i int) time.Duration {
			if i%100 == 99 {
				return time.Second
			}
			return d
		}
	}
	var now time.Duration
	const n = 200_000
	if count := load(newPolicy(1), &now, n, pausing(10*us), pausing(30*us)); count < n*8/10 {
		t.Errorf("receivers served %d of %d requests", count, n)
	}
}

// TestAMachineThatDoesOtherThingsMisleadsNobody: in one window of each trial a few
// requests take long for nothing that the disk or the way of serving has to do with.
func TestAMachineThatDoesOtherThingsMisleadsNobody(t *testing.T) {
	for window := range trialWindows {
		a := newPolicy(1)
		noisy := func(d time.Duration) func(int) time.Duration {
			return func(int) time.Duration {
				if a.phase == trial && a.windows == window && a.n > windowStart && a.n < windowStart+4 {
					return d + 20*time.Millisecond
				}
				return d
			}
		}
		var now time.Duration
		const n = 100_000
		if count := load(a, &now, n, noisy(200*us), noisy(300*us)); count < n*98/100 {
			t.Errorf("disturbed in window %d: receivers served %d of %d requests", window, count, n)
		}
	}
}

func TestTheLastReceiverNeverWaitsForADisk(t *testing.T) {
	for _, standIns := range []int32{0, 1, 3} {
		a := newPolicy(standIns)
		var now time.Duration
		for range standIns {
			if load(a, &now, 4*lastInterval, always(us), always(3*us)) == 0 {
				t.Fatalf("%d stand in, and nothing is served inline", a.standIns.Load())
			}
			a.stuck()
		}
		if n := load(a, &now, 4*lastInterval, always(us), always(3*us)); n != 0 {
			t.Errorf("the last of %d receivers served %d requests inline", standIns+1, n)
		}
		a.back()
		if standIns > 0 && load(a, &now, 4*lastInterval, always(us), always(3*us)) == 0 {
			t.Error("one is back, and nothing is served inline")
		}
	}
}

// stuckDisk serves at once, but for the requests of one sector, which end when
// they may. With MayBlock they do not come back from Submit until then.
type stuckDisk struct {
	sector int64
	stuck  chan bool // whether one is in Submit
	goOn   chan struct{}
}

func (d *stuckDisk) Submit(r *virstor.Request) {
	if r.Offset != d.sector*sector {
		r.Done.Complete(r)
		return
	}
	inside := r.Flags&virstor.MayBlock != 0
	d.stuck <- inside
	end := func() {
		<-d.goOn
		r.Done.Complete(r)
	}
	if inside {
		end()
	} else {
		go end()
	}
}

func TestARequestThatIsStuckHoldsUpNoOther(t *testing.T) {
	for _, receivers := range []int{2, 4} {
		d := &stuckDisk{sector: 7, stuck: make(chan bool, 1), goOn: make(chan struct{})}
		f := newFixture(t, d, setup{cfg: Config{Receivers: receivers, MayBlock: true, Slots: 1024, BufferSize: 4096}})
		quick := func() {
			t.Helper()
			c := f.issue(gate.Read, 0, 1)
			select {
			case <-c.Done():
			case <-timeout(t).Done():
				t.Fatal("a quick request waits for one that is stuck")
			}
		}
		// Trials serve both ways, so that some run into a receiver.
		var stuck []*gatetest.Call
		lost := 0
		for lost < receivers-1 {
			for range 150 {
				quick()
			}
			stuck = append(stuck, f.issue(gate.Read, 7, 8))
			if <-d.stuck {
				lost++
			}
			quick()
			if len(stuck) == 1000 {
				t.Fatalf("%d of %d receivers serve", lost, receivers)
			}
		}
		for range 3 { // with the last receiver alone
			stuck = append(stuck, f.issue(gate.Read, 7, 8))
			if <-d.stuck {
				t.Fatal("the last receiver serves what may be slow")
			}
			quick()
		}
		close(d.goOn)
		for _, c := range stuck {
			wantErr(t, c.Wait(), nil)
		}
		must(t, f.p.Stop(timeout(t)))
	}
}

func TestNobodyLooksAfterAnIdleUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := watchdog{rouse: make(chan struct{}, 1)}
		p := &Publication{stop: make(chan struct{})}
		passed := 0
		done := make(chan struct{})
		go func() { f.watch(p.stop, &p.taken, func() { passed++ }); close(done) }()
		for range 3 {
			synctest.Wait()
			time.Sleep(4 * patience)
			synctest.Wait()
			if !f.asleep.Load() {
				t.Error("looks at a unit without requests")
			}
			p.taken.Add(1)
			if n := f.begin(); f.asleep.Load() || !f.end(n) {
				t.Error("one quick request lost the turn, or woke nobody")
			}
		}
		n := f.begin()
		begun := time.Now()
		time.Sleep(3 * patience)
		synctest.Wait()
		if passed != 1 || f.end(n) {
			t.Errorf("a request of %v lost the turn %d times", time.Since(begun), passed)
		}
		close(p.stop)
		<-done
	})
}
