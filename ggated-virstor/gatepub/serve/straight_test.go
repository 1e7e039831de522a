package serve

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// straightSetup is a unit whose client has been seen to wait for each request.
var straightSetup = setup{cfg: Config{Receivers: 2, MayBlock: true}, straight: true}

// TestWhatIsServedStraightHasNoPlaceInTheOrder while it is served, nor afterwards.
func TestWhatIsServedStraightHasNoPlaceInTheOrder(t *testing.T) {
	d := &ramDisk{data: make([]byte, 1<<20)}
	inside := make(chan [2]int, 1)
	var f *fixture
	look := diskFunc(func(r *virstor.Request) {
		f.p.mu.Lock()
		now := [2]int{len(f.p.order.spans), int(f.p.unanswered.Load())}
		f.p.mu.Unlock()
		select {
		case inside <- now:
		default:
		}
		d.Submit(r)
	})
	f = newFixture(t, look, straightSetup)
	for _, cmd := range []gate.BIO{gate.Read, gate.Write} {
		wantErr(t, f.issue(cmd, 0, 8).Wait(), nil)
		if now := <-inside; now != [2]int{} {
			t.Errorf("%v: %d in the order, %d unanswered", cmd, now[0], now[1])
		}
	}
	// What has to do with others is in it.
	wantErr(t, f.issue(gate.Delete, 0, 8).Wait(), nil)
	if now := <-inside; now != [2]int{1, 1} {
		t.Errorf("a delete: %d in the order, %d unanswered", now[0], now[1])
	}
	must(t, f.p.Stop(timeout(t)))
}

// diskFunc is a disk's Submit.
type diskFunc func(*virstor.Request)

func (d diskFunc) Submit(r *virstor.Request) { d(r) }

// TestWhatGoesOnWithoutItsReceiverIsWaitedFor, though it began straight: what overlaps
// it waits, and so does a flush.
func TestWhatGoesOnWithoutItsReceiverIsWaitedFor(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, straightSetup)
	w := f.write(0, 4, 1)
	first := d.wait(1)[0]
	overlaps, flush, beside := f.write(3, 6, 2), f.issue(gate.Flush, 0, 0), f.issue(gate.Read, 10, 12)
	f.idle(4)
	if rs := d.wait(2); !same(rs, 0, 10) {
		t.Fatalf("submitted: %v", rs)
	}
	d.complete(d.at(t, 2, 10), nil)
	wantErr(t, beside.Wait(), nil)
	if s := f.p.Stats(); s.Unanswered != 3 || s.Waiting != 2 {
		t.Fatalf("%+v", s)
	}
	d.complete(first, nil)
	wantErr(t, w.Wait(), nil)
	d.complete(d.at(t, 1, 3), nil)
	wantErr(t, overlaps.Wait(), nil)
	d.complete(d.wait(1)[0], nil)
	wantErr(t, flush.Wait(), nil)
	must(t, f.p.Stop(timeout(t)))
}

// TestWhatIsStuckStraightIsWaitedFor: when the turn is taken from its receiver, others
// come, and what overlaps it waits until it is answered.
func TestWhatIsStuckStraightIsWaitedFor(t *testing.T) {
	d := &stuckDisk{sector: 7, stuck: make(chan bool, 1), goOn: make(chan struct{})}
	f := newFixture(t, d, straightSetup)
	stuck := f.write(7, 9, 1)
	if !<-d.stuck {
		t.Fatal("no receiver is in it")
	}
	overlaps, flush := f.write(8, 10, 2), f.issue(gate.Flush, 0, 0)
	wantErr(t, f.issue(gate.Read, 0, 1).Wait(), nil) // it came after them, so they have their place
	eventually(t, "two wait", func() bool { return f.p.Stats().Waiting == 2 })
	for _, c := range []*gatetest.Call{overlaps, flush} {
		select {
		case <-c.Done():
			t.Fatalf("%v of sector %d is answered before what it must wait for", c.Cmd, c.Offset/sector)
		default:
		}
	}
	close(d.goOn)
	for _, c := range []*gatetest.Call{stuck, overlaps, flush} {
		wantErr(t, c.Wait(), nil)
	}
	if s := f.p.Stats(); s.Unanswered != 0 {
		t.Fatalf("%+v", s)
	}
	must(t, f.p.Stop(timeout(t)))
}

// TestWhatIsHeldStraightKeepsNoSlot, and is waited for again when it goes on.
func TestWhatIsHeldStraightKeepsNoSlot(t *testing.T) {
	hand := newHandDisk()
	d := diskFunc(func(r *virstor.Request) {
		if r.Op == virstor.OpWrite {
			hand.hold(r) // before Submit returns
		}
		hand.Submit(r)
	})
	s := straightSetup
	s.cfg.Slots = 2
	f := newFixture(t, d, s)
	var calls []*gatetest.Call
	for i := range int64(10) {
		calls = append(calls, f.write(0, 4, byte(i+1)))
		hand.wait(int(i + 1))
	}
	if s := f.p.Stats(); s.Held != 10 || s.Unanswered != 0 {
		t.Fatalf("%+v", s)
	}
	first := hand.wait(10)[0]
	hand.resume(first)
	overlaps := f.issue(gate.Read, 1, 2)
	f.idle(11)
	if s := f.p.Stats(); s.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
	for _, r := range hand.wait(10) {
		hand.complete(r, nil)
	}
	hand.complete(hand.wait(1)[0], nil)
	for _, c := range append(calls, overlaps) {
		wantErr(t, c.Wait(), nil)
	}
	must(t, f.p.Stop(timeout(t)))
}

// TestReadsOnlyIsNotServedStraight: a write is kept back whatever the client does.
func TestReadsOnlyIsNotServedStraight(t *testing.T) {
	d := newHandDisk()
	s := straightSetup
	s.cfg.ReadsOnly = true
	f := newFixture(t, d, s)
	w := f.write(0, 4, 1)
	f.idle(1)
	if s := f.p.Stats(); s.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
	f.p.ServeAll()
	d.complete(d.wait(1)[0], nil)
	wantErr(t, w.Wait(), nil)
	must(t, f.p.Stop(timeout(t)))
}

func TestServingStraightAllocatesNothing(t *testing.T) {
	f := newFixture(t, &ramDisk{data: make([]byte, 1<<20)}, straightSetup)
	for _, cmd := range []gate.BIO{gate.Read, gate.Write} {
		c := gatetest.NewCall()
		c.Cmd, c.Length, c.Data = cmd, 8*sector, make([]byte, 8*sector)
		if n := testing.AllocsPerRun(1000, func() {
			f.dev.Issue(c)
			<-c.Done()
		}); n != 0 {
			t.Errorf("%v: %v allocations", cmd, n)
		}
	}
}
