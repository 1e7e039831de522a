package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	d := &ramDisk{data: make([]byte, 1<<20)}
	f := newFixture(t, d, setup{})
	want := bytes.Repeat([]byte{1, 2, 3, 4}, 2*sector)
	_, err := f.dev.WriteAt(want, 3*sector)
	must(t, err)
	got := make([]byte, len(want))
	_, err = f.dev.ReadAt(got, 3*sector)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("read something else")
	}
	must(t, f.dev.Flush())
	must(t, f.dev.Delete(3*sector, sector))
	_, err = f.dev.ReadAt(got, 3*sector)
	must(t, err)
	if !bytes.Equal(got[:sector], make([]byte, sector)) || !bytes.Equal(got[sector:], want[sector:]) {
		t.Fatal("the delete did another range")
	}
	must(t, f.p.Stop(timeout(t)))
	wantErr(t, f.p.Err(), nil)
}

func TestOverlappingRequestsWaitForTheAnswerOfTheEarlier(t *testing.T) {
	const r, w, x = gate.Read, gate.Write, gate.Delete
	for _, c := range []struct {
		first, second gate.BIO
		wait          bool
	}{
		{w, w, true}, {w, r, true}, {r, w, true}, {w, x, true}, {x, w, true}, {x, r, true}, {r, x, true}, {r, r, false},
	} {
		t.Run(fmt.Sprint(c.first, c.second), func(t *testing.T) {
			d := newHandDisk()
			f := newFixture(t, d, setup{})
			a := f.issue(c.first, 10, 14)
			b := f.issue(c.second, 13, 20) // overlaps
			n := f.issue(c.second, 20, 24) // touches the one that may wait
			m := f.issue(c.second, 6, 10)  // touches the first
			f.idle(4)
			if !c.wait {
				if rs := d.wait(4); !same(rs, 10, 13, 20, 6) {
					t.Fatalf("submitted: %v", rs)
				}
			} else {
				rs := d.wait(3)
				if !same(rs, 10, 20, 6) {
					t.Fatalf("submitted: %v", rs)
				}
				for _, r := range rs {
					if r.Offset != 10*sector {
						d.complete(r, nil)
					}
				}
				if rs := d.wait(1); !same(rs, 10) {
					t.Fatal("another's answer let it go")
				}
				d.complete(rs[0], nil)
				wantErr(t, a.Wait(), nil)
				if rs := d.wait(1); !same(rs, 13) {
					t.Fatalf("submitted: %v", rs)
				}
			}
			for _, r := range d.wait(1) {
				d.complete(r, nil)
			}
			for _, call := range []*gatetest.Call{b, n, m} {
				wantErr(t, call.Wait(), nil)
			}
		})
	}
}

func TestAFlushWaitsForEarlierWritesAlone(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{})
	f.issue(gate.Write, 0, 1)
	f.issue(gate.Write, 0, 2) // waits for the first
	f.issue(gate.Read, 5, 6)
	f.issue(gate.Delete, 7, 8)
	f.issue(gate.Write, 9, 10) // to be held
	flush := f.issue(gate.Flush, 0, 0)
	f.issue(gate.Write, 11, 12)
	f.idle(7)
	rs := d.wait(5)
	if !same(rs, 0, 5, 7, 9, 11) {
		t.Fatalf("submitted: %v", rs)
	}
	d.complete(rs[0], nil)
	rs = d.wait(5) // the second write
	i := slices.IndexFunc(rs, func(r *virstor.Request) bool { return r.Offset == 0 })
	d.complete(rs[i], nil)
	i = slices.IndexFunc(rs, func(r *virstor.Request) bool { return r.Offset == 9*sector })
	if slices.ContainsFunc(rs, func(r *virstor.Request) bool { return r.Op == virstor.OpFlush }) {
		t.Fatal("flushed before a write that may still be held")
	}
	d.hold(rs[i])
	rs = d.wait(5)
	i = slices.IndexFunc(rs, func(r *virstor.Request) bool { return r.Op == virstor.OpFlush })
	if i < 0 {
		t.Fatalf("no flush among %v", rs)
	}
	d.complete(rs[i], nil)
	wantErr(t, flush.Wait(), nil)
}

func TestAFlushWithNothingBeforeItGoesAtOnce(t *testing.T) {
	f := newFixture(t, &ramDisk{data: make([]byte, 1<<20)}, setup{})
	must(t, f.dev.Flush())
	if s := f.p.Stats(); s.Taken != 1 || s.Waiting != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestHeldWritesKeepNoSlotAndNothingWaitsForThem(t *testing.T) {
	const held = 50
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{Slots: 2}})
	var calls []*gatetest.Call
	var reqs []*virstor.Request
	for i := range int64(held) {
		calls = append(calls, f.write(0, 4, byte(i+1)))
		r := d.wait(len(reqs) + 1)[len(reqs)]
		if r.Flags&virstor.NoHold == 0 {
			t.Fatal("a write may be held beyond the limit")
		}
		d.hold(r)
		reqs = append(reqs, r)
	}
	if s := f.p.Stats(); s.Held != held || s.HeldBytes != held*4*sector || s.Unanswered != 0 {
		t.Fatalf("%+v", s)
	}
	// Requests pass, on the same range too, and use both slots.
	for _, cmd := range []gate.BIO{gate.Read, gate.Delete, gate.Write, gate.Flush, gate.Read} {
		c := f.issue(cmd, 1, 3)
		d.complete(d.wait(held + 1)[held], nil)
		wantErr(t, c.Wait(), nil)
	}
	for i, r := range reqs {
		if !bytes.Equal(r.Data, bytes.Repeat([]byte{byte(i + 1)}, 4*sector)) {
			t.Fatalf("the data of held write %d changed", i)
		}
		d.complete(r, nil)
		wantErr(t, calls[i].Wait(), nil)
	}
	if s := f.p.Stats(); s.Held != 0 || s.HeldBytes != 0 || s.Unanswered != 0 {
		t.Fatalf("%+v", s)
	}
	must(t, f.p.Stop(timeout(t)))
}

func TestAHeldWriteThatGoesOnIsWaitedForAgain(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{})
	w := f.issue(gate.Write, 0, 4)
	r := d.wait(1)[0]
	d.hold(r)
	d.resume(r)
	d.hold(r) // no space after all
	d.resume(r)
	later := f.issue(gate.Write, 3, 6)
	flush := f.issue(gate.Flush, 0, 0)
	f.idle(3)
	if rs := d.wait(1); len(rs) != 1 {
		t.Fatalf("submitted beside it: %v", rs)
	}
	d.complete(r, nil)
	wantErr(t, w.Wait(), nil)
	d.complete(d.wait(1)[0], nil)
	wantErr(t, later.Wait(), nil)
	d.complete(d.wait(1)[0], nil)
	wantErr(t, flush.Wait(), nil)
}

func TestErrorsBecomeWhatGEOMExpects(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("write 512 bytes: %w", err) }
	for err, want := range map[error]gate.Errno{
		virstor.ErrNoSpace:                    gate.ENOSPC,
		syscall.ENOSPC:                        gate.ENOSPC,
		syscall.EDQUOT:                        gate.ENOSPC,
		virstor.ErrReadOnly:                   gate.EROFS,
		virstor.ErrRange:                      gate.EIO,
		virstor.ErrRequest:                    gate.EINVAL,
		virstor.ErrDegraded:                   gate.EIO,
		virstor.ErrFlushFailed:                gate.EIO,
		geomlib.ErrNotSupported:               gate.EOPNOTSUPP,
		ErrVolumeGone:                         gate.ENXIO,
		gate.ENXIO:                            gate.EIO, // a component's
		gate.ENOMEM:                           gate.EIO,
		gate.EAGAIN:                           gate.EIO,
		io.ErrUnexpectedEOF:                   gate.EIO,
		errors.Join(io.EOF, virstor.ErrRange): gate.EIO,
	} {
		d := &ramDisk{data: make([]byte, 1<<20), fail: wrap(err)}
		f := newFixture(t, d, setup{})
		for _, cmd := range []gate.BIO{gate.Read, gate.Write, gate.Delete, gate.Flush} {
			if got := f.issue(cmd, 0, 1).Wait(); got != want {
				t.Errorf("%v %v: answered %v, want %v", cmd, err, got, want)
			}
		}
		if s := f.p.Stats(); s.Failed != 4 {
			t.Errorf("%+v", s)
		}
		must(t, f.p.Stop(timeout(t)))
	}
}

func TestWhatAClosingVolumeRefusesIsLeftToTheNext(t *testing.T) {
	d := &ramDisk{fail: fmt.Errorf("write mydata: %w", virstor.ErrClosed)}
	f := newFixture(t, d, setup{})
	c := f.write(0, 1, 7)
	f.idle(1)
	must(t, f.p.Stop(timeout(t)))
	if len(c.Done()) != 0 {
		t.Fatalf("answered with %v", c.Err)
	}
	f.disk = &ramDisk{data: make([]byte, 1<<20)}
	f.start()
	wantErr(t, c.Wait(), nil)
}

func TestUnknownRequestsAreNotSupported(t *testing.T) {
	f := newFixture(t, newHandDisk(), setup{})
	for range 3 {
		wantErr(t, f.issue(gate.Speedup, 0, 0).Wait(), gate.EOPNOTSUPP)
	}
}

func TestAnyLengthOfDeleteIsOneRequest(t *testing.T) {
	const size = 300 << 20
	for _, needsRoom := range []bool{false, true} {
		d := newHandDisk()
		f := newFixture(t, d, setup{kernel: gatetest.Options{DeleteNeedsRoom: needsRoom}, size: size,
			cfg: Config{Slots: 2, BufferSize: 16 << 10}})
		for _, length := range []int64{128 << 20, size, sector} {
			c := f.issue(gate.Delete, 0, length/sector)
			r := d.wait(1)[0]
			if r.Op != virstor.OpDelete || r.Offset != 0 || r.Length != length || r.Data != nil {
				t.Fatalf("submitted %v %d %d", r.Op, r.Offset, r.Length)
			}
			d.complete(r, nil)
			wantErr(t, c.Wait(), nil)
		}
	}
}

func TestRequestsLongerThanABufferAreServed(t *testing.T) {
	d := &ramDisk{data: make([]byte, 8<<20)}
	f := newFixture(t, d, setup{size: 8 << 20, cfg: Config{BufferSize: 16 << 10, Slots: 2}})
	want := make([]byte, 5<<20)
	for i := range want {
		want[i] = byte(i / 999)
	}
	_, err := f.dev.WriteAt(want, sector)
	must(t, err)
	got := make([]byte, len(want))
	_, err = f.dev.ReadAt(got, sector)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("read something else")
	}
	must(t, f.p.Stop(timeout(t)))
}

func TestALongHeldWriteKeepsItsData(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{BufferSize: 16 << 10, Slots: 1}})
	c := f.write(0, 200, 9)
	r := d.wait(1)[0]
	d.hold(r)
	other := f.write(300, 310, 1)
	d.complete(d.wait(2)[1], nil)
	wantErr(t, other.Wait(), nil)
	if !bytes.Equal(r.Data, bytes.Repeat([]byte{9}, 200*sector)) {
		t.Fatal("its data changed")
	}
	d.complete(r, nil)
	wantErr(t, c.Wait(), nil)
	must(t, f.p.Stop(timeout(t)))
}

func TestSlotsLimitWhatIsUnderWay(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{Slots: 3}})
	var calls []*gatetest.Call
	for i := range int64(7) {
		calls = append(calls, f.issue(gate.Read, i, i+1))
	}
	d.wait(3)
	if s, _ := f.k.Status(0); s.Waiting != 4 {
		t.Fatalf("%+v", s)
	}
	for range calls {
		d.complete(d.wait(1)[0], nil)
	}
	for _, c := range calls {
		wantErr(t, c.Wait(), nil)
	}
}

func TestSignalsDisturbNobody(t *testing.T) {
	for _, cancels := range []bool{false, true} {
		d := &ramDisk{data: make([]byte, 1<<20)}
		f := newFixture(t, d, setup{kernel: gatetest.Options{SignalCancels: cancels}, cfg: Config{Receivers: 3}})
		stop := make(chan struct{})
		var storm sync.WaitGroup
		storm.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f.k.Signal(0)
				}
			}
		})
		for i := range int64(20) {
			_, err := f.dev.WriteAt(bytes.Repeat([]byte{byte(i)}, sector), i*sector)
			must(t, err)
		}
		close(stop)
		storm.Wait()
		wantErr(t, f.p.Err(), nil)
		must(t, f.p.Stop(timeout(t)))
		for i := range 20 {
			if d.data[i*sector] != byte(i) {
				t.Fatalf("sector %d holds %d", i, d.data[i*sector])
			}
		}
	}
}

func TestOneSignalOnAnOlderKernelCostsNoPause(t *testing.T) {
	f := newFixture(t, &ramDisk{data: make([]byte, 1<<20)}, setup{kernel: gatetest.Options{SignalCancels: true}})
	f.idle(0)
	begin := time.Now()
	f.k.Signal(0)
	_, err := f.dev.WriteAt(make([]byte, sector), 0)
	must(t, err)
	if took := time.Since(begin); took >= retryPause {
		t.Fatalf("took %v", took)
	}
}

func TestADestroyedUnitEndsThePublication(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{Receivers: 2}})
	running, waiting := f.issue(gate.Write, 0, 2), f.issue(gate.Write, 1, 2)
	held := f.issue(gate.Write, 5, 6)
	f.idle(3)
	first, full := d.at(t, 2, 0), d.at(t, 2, 5)
	d.hold(full)
	must(t, f.g.Destroy(0, true))
	for _, c := range []*gatetest.Call{running, waiting, held} {
		wantErr(t, c.Wait(), gate.ENXIO)
	}
	eventually(t, "it knows", func() bool { return f.p.Err() != nil })
	wantErr(t, f.p.Err(), gate.ErrGone)
	select {
	case <-f.p.Done():
		t.Fatal("done before the disk was")
	default:
	}
	d.complete(first, nil)
	<-f.p.Done() // without the waiting one being submitted, or the held one answered
	if rs := d.wait(1); !same(rs, 5) {
		t.Fatalf("submitted after the end: %v", rs)
	}
	d.complete(full, nil)
	must(t, f.p.Stop(timeout(t)))
}

func TestDestroyIsNotHeldUpByTheReceivers(t *testing.T) {
	f := newFixture(t, newHandDisk(), setup{cfg: Config{Receivers: 4}})
	f.idle(0)
	begin := time.Now()
	must(t, f.g.Destroy(0, true))
	if took := time.Since(begin); took > 20*time.Second {
		t.Fatalf("took %v", took)
	}
	<-f.p.Done()
	wantErr(t, f.p.Err(), gate.ErrGone)
}

func TestStopAnswersWhatIsUnderWayAndLeavesWhatIsHeld(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{Receivers: 2}})
	under, held := f.write(0, 1, 1), f.write(4, 5, 2)
	first, full := d.at(t, 2, 0), d.at(t, 2, 4)
	d.hold(full)

	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	wantErr(t, f.p.Stop(short), context.DeadlineExceeded)
	stopped := make(chan error)
	go func() { stopped <- f.p.Stop(timeout(t)) }()
	d.complete(first, nil)
	wantErr(t, under.Wait(), nil)
	must(t, <-stopped)
	d.complete(full, virstor.ErrNoSpace) // the volume closes
	if len(held.Done()) != 0 {
		t.Fatalf("answered with %v", held.Err)
	}

	ram := &ramDisk{data: make([]byte, 1<<20)}
	f.disk = ram
	f.start()
	wantErr(t, held.Wait(), nil)
	must(t, f.p.Stop(timeout(t)))
	if ram.data[4*sector] != 2 || ram.data[0] != 0 {
		t.Fatal("the successor did another write")
	}
}

func TestStopEndsWhenTheLastRequestIsHeld(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{})
	f.write(0, 1, 1)
	r := d.wait(1)[0]
	stopped := make(chan error)
	go func() { stopped <- f.p.Stop(timeout(t)) }()
	<-f.p.out
	d.hold(r)
	must(t, <-stopped)
	d.complete(r, virstor.ErrClosed)
}

func TestTakeoverReplaysInOrderAndChangesNothingThatWasAnswered(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{Receivers: 3, MayBlock: true}})
	data := make([]byte, 1<<20) // the medium of both
	apply := func(r *virstor.Request) { copy(data[r.Offset:], r.Data) }

	answered := f.write(20, 30, 1)
	r := d.wait(1)[0]
	apply(r)
	d.complete(r, nil)
	wantErr(t, answered.Wait(), nil)

	done := f.write(0, 8, 2) // done, but not answered
	ww := f.write(4, 10, 3)  // waits for it
	wd := f.issue(gate.Delete, 7, 9)
	rw := f.issue(gate.Read, 7, 10)
	elsewhere := f.write(40, 41, 4)
	f.idle(6)
	late, other := d.at(t, 2, 0), d.at(t, 2, 40)
	apply(late)
	apply(other)
	d.complete(other, nil)
	wantErr(t, elsewhere.Wait(), nil)

	ram := &ramDisk{data: data}
	f.successor(ram)
	for _, c := range []*gatetest.Call{done, ww, wd, rw} {
		wantErr(t, c.Wait(), nil)
	}
	if want := append(make([]byte, 2*sector), bytes.Repeat([]byte{3}, sector)...); !bytes.Equal(rw.Data, want) {
		t.Fatal("the read is not after the write and the delete")
	}
	must(t, f.p.Stop(timeout(t)))
	for s, want := range map[int]byte{0: 2, 3: 2, 4: 3, 6: 3, 7: 0, 8: 0, 9: 3, 10: 0, 20: 1, 29: 1, 40: 4} {
		if data[s*sector] != want {
			t.Errorf("sector %d holds %d, want %d", s, data[s*sector], want)
		}
	}
	d.complete(late, nil) // too late to be answered
	if s, _ := f.k.Status(0); s.Taken != 0 || s.Waiting != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestReadsOnlyKeepsTheRestBackInOrder(t *testing.T) {
	d := newHandDisk()
	f := newFixture(t, d, setup{cfg: Config{Slots: 2, ReadsOnly: true}})
	const writes = 10 // more than there are slots
	var calls []*gatetest.Call
	for i := range int64(writes) {
		calls = append(calls, f.write(i, i+2, byte(i+1)))
	}
	flush := f.issue(gate.Flush, 0, 0)
	trim := f.issue(gate.Delete, 100, 200)
	read := f.issue(gate.Read, 0, 20)
	rs := d.wait(1)
	if !same(rs, 0) || rs[0].Op != virstor.OpRead {
		t.Fatalf("submitted: %v", rs)
	}
	d.complete(rs[0], nil)
	wantErr(t, read.Wait(), nil)
	if s := f.p.Stats(); s.Waiting != writes+2 {
		t.Fatalf("%+v", s)
	}

	f.p.ServeAll()
	// The trim overlaps nothing; of the writes each waits for the one before.
	rs = d.wait(2)
	if !same(rs, 0, 100) {
		t.Fatalf("submitted: %v", rs)
	}
	i := slices.IndexFunc(rs, func(r *virstor.Request) bool { return r.Op == virstor.OpDelete })
	d.complete(rs[i], nil)
	wantErr(t, trim.Wait(), nil)
	for i, c := range calls {
		r := d.wait(1)[0]
		if r.Offset != int64(i)*sector || !bytes.Equal(r.Data, bytes.Repeat([]byte{byte(i + 1)}, 2*sector)) {
			t.Fatalf("write %d: submitted %v at %d", i, r.Op, r.Offset)
		}
		d.complete(r, nil)
		wantErr(t, c.Wait(), nil)
	}
	r := d.wait(1)[0]
	if r.Op != virstor.OpFlush {
		t.Fatalf("submitted %v, want the flush", r.Op)
	}
	d.complete(r, nil)
	wantErr(t, flush.Wait(), nil)
	must(t, f.p.Stop(timeout(t)))
}

func TestStopWhileReadsOnlyLeavesTheRest(t *testing.T) {
	f := newFixture(t, newHandDisk(), setup{cfg: Config{ReadsOnly: true}})
	w, flush := f.write(0, 1, 5), f.issue(gate.Flush, 0, 0)
	f.idle(2)
	must(t, f.p.Stop(timeout(t)))
	f.disk, f.cfg.ReadsOnly = &ramDisk{data: make([]byte, 1<<20)}, false
	f.start()
	wantErr(t, w.Wait(), nil)
	wantErr(t, flush.Wait(), nil)
}

func TestTheTastingOfANewUnitIsServed(t *testing.T) {
	k := gatetest.New(gatetest.Options{Taste: true})
	defer k.Close()
	g := k.Open()
	_, err := g.Create(gate.CreateOptions{Unit: 0, MediaSize: 1 << 20, SectorSize: sector})
	must(t, err)
	p, err := Start(g, 0, &ramDisk{data: make([]byte, 2<<20)}, Config{})
	must(t, err)
	dev, err := k.OpenDev("ggate0", gatetest.Reader|gatetest.Writer)
	must(t, err)
	must(t, g.Resize(0, 2<<20))
	must(t, dev.Close())
	if n := p.Stats().Taken; n != 4 { // two sectors, twice
		t.Fatalf("%d requests taken", n)
	}
	must(t, g.Destroy(0, false))
	<-p.Done()
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	f := newFixture(t, &ramDisk{data: make([]byte, 1<<20)}, setup{})
	for _, cmd := range []gate.BIO{gate.Read, gate.Write, gate.Delete, gate.Flush} {
		c := gatetest.NewCall()
		c.Cmd, c.Length = cmd, 8*sector
		if cmd == gate.Read || cmd == gate.Write {
			c.Data = make([]byte, c.Length)
		}
		if n := testing.AllocsPerRun(200, func() {
			f.dev.Issue(c)
			<-c.Done()
		}); n != 0 {
			t.Errorf("%v: %v allocations", cmd, n)
		}
	}

	// What completes later, and what waits for it.
	d := &laterDisk{queue: make(chan *virstor.Request, 64)}
	stop := make(chan struct{})
	go d.run(stop)
	defer close(stop)
	g := newFixture(t, d, setup{})
	a, b := gatetest.NewCall(), gatetest.NewCall()
	a.Cmd, a.Length, a.Data = gate.Write, 8*sector, make([]byte, 8*sector)
	b.Cmd, b.Length, b.Data = gate.Read, 8*sector, make([]byte, 8*sector)
	if n := testing.AllocsPerRun(200, func() {
		g.dev.Issue(a)
		g.dev.Issue(b)
		<-a.Done()
		<-b.Done()
	}); n != 0 {
		t.Errorf("completed later: %v allocations", n)
	}
}

// laterDisk completes everything on a goroutine of its own.
type laterDisk struct{ queue chan *virstor.Request }

func (d *laterDisk) Submit(r *virstor.Request) { d.queue <- r }

func (d *laterDisk) run(stop <-chan struct{}) {
	for {
		select {
		case r := <-d.queue:
			r.Err = nil
			r.Done.Complete(r)
		case <-stop:
			return
		}
	}
}

func TestManyReceiversUnderLoad(t *testing.T) {
	const workers, rounds, own = 8, 100, 32
	d := &ramDisk{data: make([]byte, workers*own*sector)}
	f := newFixture(t, d, setup{size: workers * own * sector, cfg: Config{Receivers: 4, MayBlock: true, Slots: 8}})
	var wg sync.WaitGroup
	for w := range int64(workers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			mine := make([]byte, own*sector)
			for range rounds {
				from := rng.Int64N(own)
				part := mine[from*sector : (from+1+rng.Int64N(own-from))*sector]
				at := (w*own + from) * sector
				var err error
				switch rng.IntN(4) {
				case 0:
					for i := range part {
						part[i] = byte(rng.Uint32())
					}
					_, err = f.dev.WriteAt(part, at)
				case 1:
					clear(part)
					err = f.dev.Delete(at, int64(len(part)))
				case 2:
					err = f.dev.Flush()
				default:
					got := make([]byte, len(part))
					if _, err = f.dev.ReadAt(got, at); err == nil && !bytes.Equal(got, part) {
						err = errors.New("read something else")
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	must(t, f.p.Stop(timeout(t)))
}

func TestConfigIsChecked(t *testing.T) {
	k := gatetest.New(gatetest.Options{})
	defer k.Close()
	g := k.Open()
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Receivers: 5}, "serve unit 0: 5 receivers: 1 to 4 are possible"},
		{Config{Receivers: 2, Slots: 1}, "serve unit 0: 1 slots: 2 (one a receiver) to 1024 are possible"},
		{Config{BufferSize: 5000}, fmt.Sprintf("serve unit 0: buffers of 5000 bytes: a multiple of the page size %d is needed", os.Getpagesize())},
		{Config{}, "serve unit 0: CANCEL unit 0: no such unit"},
	} {
		if _, err := Start(g, 0, newHandDisk(), c.cfg); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
