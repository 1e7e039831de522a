package gatetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

const sector = 512

// fixture is a kernel with one unit of 64 sectors, ggate0, open for
// reading and writing.
type fixture struct {
	k   *Kernel
	g   *gate.Gate
	dev *Dev
}

func newFixture(t *testing.T, opts Options) *fixture {
	t.Helper()
	k := New(opts)
	t.Cleanup(k.Close)
	g := k.Open()
	if _, err := g.Create(gate.CreateOptions{Unit: gate.UnitAuto, MediaSize: 64 * sector, SectorSize: sector}); err != nil {
		t.Fatal(err)
	}
	dev, err := k.OpenDev("ggate0", Reader|Writer)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{k, g, dev}
}

func (f *fixture) issue(cmd gate.BIO, off, length int64) *Call {
	c := NewCall()
	c.Cmd, c.Offset, c.Length = cmd, off, length
	if cmd == gate.Read || cmd == gate.Write {
		c.Data = bytes.Repeat([]byte{byte(off / sector)}, int(length))
	}
	f.dev.Issue(c)
	return c
}

func (f *fixture) start(t *testing.T) *gate.IO {
	t.Helper()
	io := new(gate.IO)
	if err := f.g.Start(0, io, make([]byte, 64*sector)); err != nil {
		t.Fatal(err)
	}
	return io
}

func (f *fixture) done(t *testing.T, io *gate.IO, errno gate.Errno) {
	t.Helper()
	io.Error = errno
	if err := f.g.Done(io); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// eventually waits for a condition that has no event of its own.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func TestAWriteReachesTheReceiverAndAReadComesBack(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.issue(gate.Write, 3*sector, 2*sector)
	io := new(gate.IO)
	buf := make([]byte, 8*sector)
	if err := f.g.Start(0, io, buf); err != nil {
		t.Fatal(err)
	}
	if io.Cmd != gate.Write || io.Offset != 3*sector || io.Length != 2*sector || io.Seq != 1 || io.Unit != 0 {
		t.Fatalf("got %+v", io)
	}
	if !bytes.Equal(buf[:io.Length], w.Data) {
		t.Fatal("the write's data did not arrive")
	}
	f.done(t, io, 0)
	wantErr(t, w.Wait(), nil)

	r := f.issue(gate.Read, sector, sector)
	if err := f.g.Start(0, io, buf); err != nil {
		t.Fatal(err)
	}
	copy(buf, strings.Repeat("x", sector))
	f.done(t, io, 0)
	wantErr(t, r.Wait(), nil)
	if string(r.Data) != strings.Repeat("x", sector) || io.Seq != 2 {
		t.Fatalf("read %q, seq %d", r.Data[:8], io.Seq)
	}
}

func TestAnErrorIsDeliveredWithoutData(t *testing.T) {
	f := newFixture(t, Options{})
	r := f.issue(gate.Read, 0, sector)
	f.done(t, f.start(t), gate.EIO)
	wantErr(t, r.Wait(), gate.EIO)
	if r.Data[0] != 0 {
		t.Fatal("a failed read changed the buffer")
	}
}

func TestUnitsAndNames(t *testing.T) {
	k := New(Options{MaxUnits: 3})
	defer k.Close()
	g := k.Open()
	create := func(name string, unit int) (int, error) {
		return g.Create(gate.CreateOptions{Name: name, Unit: unit, MediaSize: sector, SectorSize: sector, Info: "i"})
	}
	if u, err := create("", 1); u != 1 || err != nil {
		t.Fatal(u, err)
	}
	_, err := create("", 1)
	wantErr(t, err, gate.ErrExists)
	_, err = create("", 3)
	wantErr(t, err, gate.EINVAL)
	if u, err := create("virstor/mydata", 0); u != 0 || err != nil {
		t.Fatal(u, err)
	}
	_, err = create("virstor/mydata", 0)
	wantErr(t, err, gate.ErrExists)
	if u, err := create("", gate.UnitAuto); u != 2 || err != nil {
		t.Fatal(u, err)
	}
	_, err = create("", gate.UnitAuto)
	wantErr(t, err, gate.ENFILE)

	if u, err := g.UnitByName("virstor/mydata"); u != 0 || err != nil {
		t.Fatal(u, err)
	}
	_, err = g.UnitByName("virstor/other")
	wantErr(t, err, gate.ErrGone)
	if s, ok := k.Status(1); !ok || s.Name != "ggate1" || s.Info != "i" {
		t.Fatalf("%+v %v", s, ok)
	}
	if err := g.Destroy(1, false); err != nil {
		t.Fatal(err)
	}
	wantErr(t, g.Destroy(1, false), gate.ErrGone)
	if u, err := create("", gate.UnitAuto); u != 1 || err != nil {
		t.Fatal(u, err)
	}
}

func TestSequenceNumbersSurviveCancelAndOrderIsKept(t *testing.T) {
	f := newFixture(t, Options{})
	for i := range int64(6) {
		f.issue(gate.Write, i*sector, sector)
	}
	ios := []*gate.IO{f.start(t), f.start(t), f.start(t), f.start(t)}
	f.done(t, ios[1], 0)
	if err := f.g.Cancel(0, 0); err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for range 5 {
		got = append(got, f.start(t).Seq)
	}
	if want := []uint64{1, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Fatalf("taken in the order %v, want %v", got, want)
	}
}

func TestCancelOfOnePutsItFirst(t *testing.T) {
	f := newFixture(t, Options{})
	for i := range int64(4) {
		f.issue(gate.Read, i*sector, sector)
	}
	f.start(t)
	f.start(t)
	f.start(t)
	if err := f.g.Cancel(0, 2); err != nil {
		t.Fatal(err)
	}
	if a, b := f.start(t).Seq, f.start(t).Seq; a != 2 || b != 4 {
		t.Fatalf("taken %d then %d, want 2 then 4", a, b)
	}
	if s, _ := f.k.Status(0); s.Taken != 4 || s.Waiting != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestDoneOfAnUnknownRequestChangesNothing(t *testing.T) {
	f := newFixture(t, Options{})
	c := f.issue(gate.Flush, 0, 0)
	io := f.start(t)
	seq := io.Seq
	io.Seq = 77
	f.done(t, io, 0)
	if len(c.Done()) != 0 {
		t.Fatal("another request was answered")
	}
	io.Seq = seq
	f.done(t, io, 0)
	f.done(t, io, gate.EIO) // a second time
	wantErr(t, c.Wait(), nil)
}

func TestDoneWithEAGAINGivesTheRequestBack(t *testing.T) {
	f := newFixture(t, Options{})
	f.issue(gate.Read, 0, sector)
	f.issue(gate.Read, sector, sector)
	io := f.start(t)
	io.Error = gate.EAGAIN
	if err := f.g.Done(io); err == nil {
		t.Fatal("package gate lets EAGAIN pass")
	}
	if e := f.k.Device().Ioctl(cmdDone, unsafe.Pointer(io)); e != 0 {
		t.Fatal(e)
	}
	if a, b := f.start(t).Seq, f.start(t).Seq; a != 1 || b != 2 {
		t.Fatalf("taken %d then %d", a, b)
	}
}

func TestStartNeedsRoomForAWriteAndOnOlderKernelsForADelete(t *testing.T) {
	for _, older := range []bool{false, true} {
		f := newFixture(t, Options{DeleteNeedsRoom: older})
		f.issue(gate.Write, 0, 4*sector)
		io := new(gate.IO)
		wantErr(t, f.g.Start(0, io, make([]byte, 2*sector)), gate.ErrTooLong)
		if io.Length != 4*sector || io.Cmd != gate.Write {
			t.Fatalf("got %+v", io)
		}
		f.done(t, f.start(t), 0)

		f.issue(gate.Delete, 0, 32*sector)
		err := f.g.Start(0, io, make([]byte, 2*sector))
		if !older {
			wantErr(t, err, nil)
			continue
		}
		wantErr(t, err, gate.ErrTooLong)
		if io.Length != 32*sector || io.Cmd != gate.Delete {
			t.Fatalf("got %+v", io)
		}
		r := f.g.NewReceiver(0)
		r.Enter()
		if err := r.StartClaiming(io, io.Length); err != nil || io.Length != 32*sector {
			t.Fatal(err)
		}
	}
}

func TestAWriteIsNotTakenWithoutABuffer(t *testing.T) {
	f := newFixture(t, Options{})
	f.issue(gate.Write, 0, sector)
	f.issue(gate.Write, sector, sector)
	r := f.g.NewReceiver(0)
	r.Enter()
	wantErr(t, r.StartClaiming(new(gate.IO), 4*sector), gate.ErrBadBuffer)
	if seq := f.start(t).Seq; seq != 1 {
		t.Fatalf("took %d, want the first", seq)
	}
}

func TestASignalEndsOneSleepAsTheKernelOfThatAgeDoes(t *testing.T) {
	for cancels, want := range map[bool]error{false: gate.ErrInterrupted, true: gate.ErrCanceled} {
		f := newFixture(t, Options{SignalCancels: cancels})
		ended := make(chan error, 2)
		for range 2 {
			go func() { ended <- f.g.Start(0, new(gate.IO), make([]byte, sector)) }()
		}
		eventually(t, "two STARTs sleep", func() bool { return f.k.Sleeping(0) == 2 })
		if !f.k.Signal(0) {
			t.Fatal("nobody was signalled")
		}
		wantErr(t, <-ended, want)
		if n := f.k.Sleeping(0); n != 1 {
			t.Fatalf("%d sleep on, want 1", n)
		}
		f.issue(gate.Read, 0, sector)
		wantErr(t, <-ended, nil)
		if f.k.Signal(0) {
			t.Fatal("signalled nobody")
		}
	}
}

func TestInterruptEndsTheSleepOfThatReceiverAlone(t *testing.T) {
	f := newFixture(t, Options{})
	type result struct {
		i   int
		err error
	}
	ended := make(chan result, 2)
	rs := []*gate.Receiver{f.g.NewReceiver(0), f.g.NewReceiver(0)}
	rs[0].Interrupt() // not in START: no effect
	for i, r := range rs {
		go func() {
			r.Enter()
			ended <- result{i, r.Start(new(gate.IO), make([]byte, sector))}
		}()
	}
	eventually(t, "both sleep", func() bool { return f.k.Sleeping(0) == 2 })
	rs[1].Interrupt()
	got := <-ended
	wantErr(t, got.err, gate.ErrInterrupted)
	if got.i != 1 || f.k.Sleeping(0) != 1 {
		t.Fatalf("receiver %d ended, %d sleep", got.i, f.k.Sleeping(0))
	}
}

func TestDestroyFailsWhatIsQueuedAndEndsWhoSleeps(t *testing.T) {
	f := newFixture(t, Options{})
	wantErr(t, f.g.Destroy(0, false), gate.ErrBusy)
	a, b := f.issue(gate.Read, 0, sector), f.issue(gate.Read, 0, sector)
	taken := f.start(t)
	if err := f.g.Destroy(0, true); err != nil {
		t.Fatal(err)
	}
	wantErr(t, a.Wait(), gate.ENXIO)
	wantErr(t, b.Wait(), gate.ENXIO)
	wantErr(t, f.issue(gate.Read, 0, sector).Wait(), gate.ENXIO)
	wantErr(t, f.g.Done(taken), gate.ErrGone)
	wantErr(t, f.g.Start(0, new(gate.IO), nil), gate.ErrGone)
	wantErr(t, f.g.Cancel(0, 0), gate.ErrGone)
	wantErr(t, f.g.Resize(0, sector), gate.ErrGone)
	_, err := f.k.OpenDev("ggate0", Reader)
	wantErr(t, err, gate.ENOENT)
}

func TestDestroyWaitsForEveryStart(t *testing.T) {
	f := newFixture(t, Options{})
	ended := make(chan error, 3)
	for range 3 {
		go func() { ended <- f.g.Start(0, new(gate.IO), nil) }()
	}
	eventually(t, "three sleep", func() bool { return f.k.Sleeping(0) == 3 })
	held := f.k.hold(0) // a fourth, on its way out
	destroyed := make(chan error)
	go func() { destroyed <- f.g.Destroy(0, true) }()
	for range 3 {
		wantErr(t, <-ended, gate.ErrCanceled)
	}
	// The unit is still known, and its STARTs end at once.
	wantErr(t, f.g.Start(0, new(gate.IO), nil), gate.ErrCanceled)
	select {
	case <-destroyed:
		t.Fatal("DESTROY returned while a START held the unit")
	default:
	}
	f.k.release(held)
	wantErr(t, <-destroyed, nil)
	wantErr(t, f.g.Start(0, new(gate.IO), nil), gate.ErrGone)
}

func TestUnitsOutliveTheirDaemon(t *testing.T) {
	f := newFixture(t, Options{})
	for i := range int64(3) {
		f.issue(gate.Read, i*sector, sector)
	}
	f.start(t)
	if err := f.g.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, f.g.Cancel(0, 0), gate.EBADF)
	f.g = f.k.Open()
	if err := f.g.Cancel(0, 0); err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 3; want++ {
		if got := f.start(t).Seq; got != want {
			t.Fatalf("took %d, want %d", got, want)
		}
	}
}

func TestCancelWakesNobody(t *testing.T) {
	f := newFixture(t, Options{})
	f.issue(gate.Read, 0, sector)
	f.start(t)
	got := make(chan uint64, 2)
	go func() {
		for range 2 {
			io := new(gate.IO)
			if f.g.Start(0, io, make([]byte, sector)) != nil {
				return
			}
			got <- io.Seq
		}
	}()
	eventually(t, "START sleeps", func() bool { return f.k.Sleeping(0) == 1 })
	if err := f.g.Cancel(0, 0); err != nil {
		t.Fatal(err)
	}
	if s, _ := f.k.Status(0); s.Waiting != 1 || f.k.Sleeping(0) != 1 {
		t.Fatalf("%+v", s)
	}
	f.issue(gate.Read, 0, sector)
	if a, b := <-got, <-got; a != 1 || b != 2 {
		t.Fatalf("took %d, %d", a, b)
	}
}

// rawCreate sends what package gate never does.
func rawCreate(k *Kernel, maxCount, timeout uint32) gate.Errno {
	b := make([]byte, 2608)
	binary.LittleEndian.PutUint32(b[0:], gate.Version)
	binary.LittleEndian.PutUint64(b[8:], 64*sector)
	binary.LittleEndian.PutUint32(b[16:], sector)
	binary.LittleEndian.PutUint32(b[24:], maxCount)
	binary.LittleEndian.PutUint32(b[28:], timeout)
	binary.LittleEndian.PutUint32(b[2600:], 0)
	return k.Device().Ioctl(cmdCreate, unsafe.Pointer(unsafe.SliceData(b)))
}

func TestAFullQueueAnswersENOMEM(t *testing.T) {
	k := New(Options{})
	defer k.Close()
	if e := rawCreate(k, 2, 0); e != 0 {
		t.Fatal(e)
	}
	dev, err := k.OpenDev("ggate0", Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{k, k.Open(), dev}
	for range 3 { // the kernel compares before it counts
		f.issue(gate.Read, 0, sector)
	}
	wantErr(t, f.issue(gate.Read, 0, sector).Wait(), gate.ENOMEM)
	f.done(t, f.start(t), 0)
	if c := f.issue(gate.Read, 0, sector); len(c.Done()) != 0 {
		t.Fatal("no room after an answer")
	}
}

func TestTheGuardFailsWhatIsOlderThanFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New(Options{})
		defer k.Close()
		if e := rawCreate(k, 0, 3); e != 0 {
			t.Fatal(e)
		}
		dev, err := k.OpenDev("ggate0", Reader)
		if err != nil {
			t.Fatal(err)
		}
		f := &fixture{k, k.Open(), dev}
		begin := time.Now()
		taken := f.issue(gate.Read, 0, sector)
		io := f.start(t)
		waiting := f.issue(gate.Read, 0, sector)
		wantErr(t, taken.Wait(), gate.EIO)
		wantErr(t, waiting.Wait(), gate.EIO)
		if age := time.Since(begin); age != 6*time.Second { // the second scan
			t.Fatalf("failed after %v", age)
		}
		f.done(t, io, 0) // late: unknown by now
	})
}

func TestAForeignVersionIsNamed(t *testing.T) {
	k := New(Options{Version: 2})
	defer k.Close()
	_, err := gate.New(k.Device())
	wantErr(t, err, gate.ErrVersion)
}

func TestAccessFollowsTheFlags(t *testing.T) {
	k := New(Options{})
	defer k.Close()
	g := k.Open()
	for unit, flags := range []gate.Flags{gate.ReadOnly, gate.WriteOnly} {
		if _, err := g.Create(gate.CreateOptions{Unit: unit, MediaSize: sector, SectorSize: sector, Flags: flags}); err != nil {
			t.Fatal(err)
		}
	}
	ro, err := k.OpenDev("ggate0", Reader|Writer) // so that read-only mounts work
	if err != nil {
		t.Fatal(err)
	}
	_, err = ro.WriteAt(make([]byte, sector), 0)
	wantErr(t, err, gate.EPERM)
	wantErr(t, ro.Flush(), gate.EPERM)
	_, err = k.OpenDev("ggate1", Reader)
	wantErr(t, err, gate.EPERM)
	if _, err = k.OpenDev("ggate1", Writer); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsAreCheckedAsGEOMDoes(t *testing.T) {
	f := newFixture(t, Options{})
	for _, c := range []struct {
		cmd         gate.BIO
		off, length int64
		want        gate.Errno
	}{
		{gate.Read, 64 * sector, sector, gate.EIO},
		{gate.Delete, 63 * sector, 2 * sector, gate.EIO},
		{gate.Write, 1, sector, gate.EINVAL},
		{gate.Write, 0, 100, gate.EINVAL},
		{4, 0, 0, gate.EOPNOTSUPP}, // BIO_GETATTR
	} {
		wantErr(t, f.issue(c.cmd, c.off, c.length).Wait(), c.want)
	}
}

func TestResizeIsSeenByTheDevice(t *testing.T) {
	f := newFixture(t, Options{})
	if err := f.g.Resize(0, 100*sector); err != nil {
		t.Fatal(err)
	}
	if got := f.dev.MediaSize(); got != 100*sector {
		t.Fatalf("%d bytes", got)
	}
	wantErr(t, f.g.Resize(0, 100), gate.EINVAL)
	if err := f.g.SetInfo(0, "new"); err != nil {
		t.Fatal(err)
	}
	if s, _ := f.k.Status(0); s.Info != "new" {
		t.Fatalf("%+v", s)
	}
}

func TestTastingHoldsUpTheEventThreadUntilItIsServed(t *testing.T) {
	k := New(Options{Taste: true})
	defer k.Close()
	g := k.Open()
	if _, err := g.Create(gate.CreateOptions{Unit: 0, MediaSize: 8 * sector, SectorSize: sector}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device is tasted", func() bool { s, _ := k.Peek(0); return s.Waiting == 1 })
	wantErr(t, g.Destroy(0, false), gate.ErrBusy) // the taster has it open

	opened := make(chan *Dev)
	go func() {
		d, err := k.OpenDev("ggate0", Reader|Writer)
		if err != nil {
			t.Error(err)
		}
		opened <- d
	}()
	var offsets []int64
	serve := func() {
		io := new(gate.IO)
		if err := g.Start(0, io, make([]byte, sector)); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-opened:
			t.Error("opened for writing before the tasting was served")
		default:
		}
		offsets = append(offsets, io.Offset)
		if err := g.Done(io); err != nil {
			t.Error(err)
		}
	}
	serve()
	serve()
	d := <-opened
	if want := []int64{0, 7 * sector}; !slices.Equal(offsets, want) {
		t.Fatalf("tasted at %v, want %v", offsets, want)
	}

	closed := make(chan error)
	go func() { closed <- d.Close() }()
	serve()
	serve()
	wantErr(t, <-closed, nil)
	wantErr(t, d.Close(), gate.EBADF)
	wantErr(t, g.Destroy(0, false), nil)
}

func TestForcedDestroyEndsATastingThatNobodyServes(t *testing.T) {
	k := New(Options{Taste: true})
	defer k.Close()
	g := k.Open()
	if _, err := g.Create(gate.CreateOptions{Unit: 0, MediaSize: 8 * sector, SectorSize: sector}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device is tasted", func() bool { s, _ := k.Peek(0); return s.Waiting == 1 })
	wantErr(t, g.Destroy(0, true), nil)
	k.WaitIdle()
}

func TestManyStartsTakeEachRequestOnce(t *testing.T) {
	f := newFixture(t, Options{})
	const requests, receivers = 400, 4
	var wg sync.WaitGroup
	seen := make([]int, requests+1)
	var mu sync.Mutex
	for range receivers {
		wg.Go(func() {
			io, buf := new(gate.IO), make([]byte, sector)
			for f.g.Start(0, io, buf) == nil {
				mu.Lock()
				seen[io.Seq]++
				mu.Unlock()
				io.Error = 0
				if f.g.Done(io) != nil {
					return
				}
			}
		})
	}
	var calls []*Call
	for i := range int64(requests) {
		calls = append(calls, f.issue(gate.Write, i%64*sector, sector))
	}
	for _, c := range calls {
		wantErr(t, c.Wait(), nil)
	}
	wantErr(t, f.g.Destroy(0, true), nil)
	wg.Wait()
	for seq := 1; seq <= requests; seq++ {
		if seen[seq] != 1 {
			t.Fatalf("request %d was taken %d times", seq, seen[seq])
		}
	}
}

func TestAnUnknownIoctlIsNotForUs(t *testing.T) {
	k := New(Options{})
	defer k.Close()
	b := make([]byte, 64)
	wantErr(t, k.Device().Ioctl(0xc0386d09, unsafe.Pointer(unsafe.SliceData(b))), gate.ENOTTY)
}
