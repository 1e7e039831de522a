package virstor

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// farDisk is a disk that several hosts reach. Each has one of its own.
type farDisk struct {
	*disktest.Disk
	abandoned atomic.Pointer[error]
}

func (d *farDisk) Guard(geomlib.Guard) {}
func (d *farDisk) Abandon(why error)   { d.abandoned.Store(&why) }
func (d *farDisk) Close() error        { return nil }

func (d *farDisk) ReadOnce(p []byte, off int64) error {
	_, err := d.ReadAt(p, off)
	return err
}

func (d *farDisk) WriteOnce(p []byte, off int64) error {
	if _, err := d.WriteAt(p, off); err != nil {
		return err
	}
	return d.Flush()
}

// far are disks as one host reaches them.
func far(disks ...*disktest.Disk) (all []*farDisk) {
	for _, d := range disks {
		all = append(all, &farDisk{Disk: d})
	}
	return all
}

func assembleFar(t *testing.T, disks []*farDisk) *Assembly {
	t.Helper()
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, Member{d, m})
	}
	return Assemble(ms)[0]
}

// quickly are the times of leases in tests.
func quickly(host string) LeaseConfig {
	return LeaseConfig{Interval: 40 * time.Millisecond, Settle: time.Second, HostName: host}
}

// openLeased takes the lease of the volume on disks, and opens it.
func openLeased(t *testing.T, lc LeaseConfig, cfg Config, disks []*farDisk) *Volume {
	t.Helper()
	a := assembleFar(t, disks)
	if !a.NeedsLease() {
		t.Fatal("it needs no lease")
	}
	l, err := a.Take(t.Context(), lc)
	if err != nil {
		t.Fatal(err)
	}
	if a, err = a.Again(); err != nil {
		t.Fatal(err)
	}
	cfg.Lease = l
	v, err := Open(a, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// leaseOn is the lease on disk d, a component 0.
func leaseOn(t *testing.T, d *disktest.Disk) ondisk.Lease {
	t.Helper()
	m, err := geomlib.ReadMetadata(d)
	if err != nil {
		t.Fatal(err)
	}
	off, room := ondisk.LeaseOffset(m, d.SectorSize())
	if !room {
		t.Fatal("no room")
	}
	b := make([]byte, ondisk.LeaseSize)
	if _, err := d.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	l, err := ondisk.DecodeLease(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func farVolume(t *testing.T) []*disktest.Disk {
	disks := []*disktest.Disk{newMem("a", 64*jobChunk, 512), newMem("b", 64*jobChunk, 512)}
	label(t, 128*jobChunk, jobChunk, disks...)
	return disks
}

func TestALeaseIsReleasedLastAndByWhoClosesInOrder(t *testing.T) {
	disks := farVolume(t)
	v := openLeased(t, quickly("here"), Config{}, far(disks...))
	if s := v.Status().Lease; s == nil || s.Owner.HostName != "here" || s.Lost != nil || s.Left <= 0 || s.Fenced {
		t.Errorf("status: %+v", s)
	}
	if l := leaseOn(t, disks[0]); l.Released || l.HostName != "here" || l.VolumeID != v.ID() {
		t.Errorf("while it is served: %+v", l)
	}
	if _, err := v.WriteAt([]byte("something"), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if l := leaseOn(t, disks[0]); !l.Released {
		t.Errorf("afterwards: %+v", l)
	}
	v = openLeased(t, quickly("there"), Config{}, far(disks...))
	v.KeepLease()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if l := leaseOn(t, disks[0]); l.Released || l.HostName != "there" {
		t.Errorf("kept for the next process: %+v", l)
	}
}

func TestWhileAHostHasTheLeaseNobodyElseOpensTheVolume(t *testing.T) {
	disks := farVolume(t)
	v := openLeased(t, quickly("first"), Config{}, far(disks...))
	other := assembleFar(t, far(disks...))
	if _, err := other.Take(t.Context(), quickly("second")); !errors.Is(err, ErrLeased) {
		t.Errorf("taking it: %v", err)
	}
	if owner, leased, err := other.Leased(0); err != nil || !leased || owner.HostName != "first" {
		t.Errorf("%+v, %t, %v", owner, leased, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if owner, leased, err := other.Leased(0); err != nil || leased {
		t.Errorf("afterwards: %+v, %t, %v", owner, leased, err)
	}
	v = openLeased(t, quickly("second"), Config{}, far(disks...))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// What was this host's is known by its number, and continued at once.
func TestALeaseOfThisHostIsContinued(t *testing.T) {
	disks := farVolume(t)
	var noted uint64
	lc := quickly("here")
	lc.Note = func(owner uint64) error { noted = owner; return nil }
	v := openLeased(t, lc, Config{}, far(disks...))
	v.KeepLease()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	lc.Last, lc.Settle = noted, time.Hour
	v = openLeased(t, lc, Config{}, far(disks...))
	if l := leaseOn(t, disks[0]); l.Owner != noted {
		t.Errorf("%+v", l)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// From the moment that another has written the lease nothing is sent, whatever waits
// fails, and closing flushes nothing.
func TestAVolumeWhoseLeaseIsLostSendsNothing(t *testing.T) {
	disks := farVolume(t)
	told := make(chan error, 1)
	here := far(disks...)
	v := openLeased(t, quickly("here"), Config{Events: func(e Event) {
		if e.Kind == EventLeaseLost {
			told <- e.Err
		}
	}}, here)
	if _, err := v.WriteAt(bytes.Repeat([]byte{1}, 512), 0); err != nil {
		t.Fatal(err)
	}
	l := leaseOn(t, disks[0])
	l.Owner, l.HostName, l.Sequence = l.Owner+1, "there", 1
	b := make([]byte, ondisk.LeaseSize)
	if err := l.Encode(b); err != nil {
		t.Fatal(err)
	}
	m, err := geomlib.ReadMetadata(disks[0])
	if err != nil {
		t.Fatal(err)
	}
	off, _ := ondisk.LeaseOffset(m, 512)
	// A renewal that has looked already writes over it once; who takes a lease looks again.
	again, late := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
	defer again.Stop()
	for lost := false; !lost; {
		if _, err := disks[0].WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-told:
			if lost = true; !errors.Is(err, geomlib.ErrLeaseLost) || err.Error() != "the lease of the volume is lost: there has it" {
				t.Errorf("told: %v", err)
			}
		case <-again.C:
		case <-late:
			t.Fatal("nobody is told")
		}
	}
	for i, d := range here {
		if why := d.abandoned.Load(); why == nil || !errors.Is(*why, geomlib.ErrLeaseLost) {
			t.Errorf("component %d is not abandoned", i)
		}
		d.ResetCounts()
	}
	if _, err := v.WriteAt(bytes.Repeat([]byte{2}, 512), 0); !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("writing: %v", err)
	}
	if _, err := v.ReadAt(make([]byte, 512), 0); !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("reading: %v", err)
	}
	if err := v.Close(); !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("closing: %v", err)
	}
	for i, d := range disks {
		if w, f := d.Count(disktest.Write), d.Count(disktest.Flush); w != 0 || f != 0 {
			t.Errorf("component %d was written to %d times and flushed %d times", i, w, f)
		}
	}
	if is := leaseOn(t, disks[0]); is != l {
		t.Errorf("the other's lease is now %+v", is)
	}
}

// A member whose generation another host has raised is as good a sign.
func TestAGenerationOfAnotherHostIsALostLease(t *testing.T) {
	disks := farVolume(t)
	told := make(chan error, 1)
	v := openLeased(t, quickly("here"), Config{Events: func(e Event) {
		if e.Kind == EventLeaseLost {
			told <- e.Err
		}
	}}, far(disks...))
	m, err := geomlib.ReadMetadata(disks[1])
	if err != nil {
		t.Fatal(err)
	}
	m.Member.Generation++
	if err := geomlib.StoreMetadata(disks[1], m); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case <-time.After(time.Minute):
		t.Fatal("nobody is told")
	}
	if err := v.Close(); !errors.Is(err, geomlib.ErrLeaseLost) {
		t.Errorf("closing: %v", err)
	}
}

// The lease is where component 0 says, from the moment that it says so.
func TestTheLeaseMovesWithTheMapAndWithComponent0(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 600*jobChunk, 512), disktest.New("b", 600*jobChunk, 512)}
	label(t, 128*jobChunk, jobChunk, disks...)
	ms := far(disks...)
	v := openLeased(t, quickly("here"), Config{}, ms)
	data := bytes.Repeat([]byte("data"), 128)
	if _, err := v.WriteAt(data, 5*jobChunk); err != nil {
		t.Fatal(err)
	}
	before, err := geomlib.ReadMetadata(disks[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Resize(30000*jobChunk, false, JobOptions{}); err != nil {
		t.Fatal(err)
	}
	if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
		t.Fatal(s.Err, err)
	}
	after, err := geomlib.ReadMetadata(disks[0])
	if err != nil {
		t.Fatal(err)
	}
	was, _ := ondisk.LeaseOffset(before, 512)
	if is, _ := ondisk.LeaseOffset(after, 512); is == was {
		t.Fatal("growing has not moved it")
	}
	if l := leaseOn(t, disks[0]); l.HostName != "here" {
		t.Errorf("grown: %+v", l)
	}
	if err := v.Evacuate([]string{"a"}, "", JobOptions{}); err != nil {
		t.Fatal(err)
	}
	if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
		t.Fatal(s.Err, err)
	}
	if l := leaseOn(t, disks[1]); l.HostName != "here" || l.Released {
		t.Errorf("on the new component 0: %+v", l)
	}
	disks[0].ResetCounts()
	for begin := leaseOn(t, disks[1]).Sequence; leaseOn(t, disks[1]).Sequence < begin+3; {
		runtime.Gosched()
	}
	if n := disks[0].Count(disktest.Write); n != 0 {
		t.Errorf("the one that left is written to, %d times", n)
	}
	got := make([]byte, len(data))
	if _, err := v.ReadAt(got, 5*jobChunk); err != nil || !bytes.Equal(got, data) {
		t.Errorf("data: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = openLeased(t, quickly("there"), Config{}, far(disks[1]))
	if _, err := v.ReadAt(got, 5*jobChunk); err != nil || !bytes.Equal(got, data) {
		t.Errorf("data by the next owner: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// A renewal leaves alone what the system's cache has of a component that is a file.
func TestRenewingDropsNoCache(t *testing.T) {
	disks := farVolume(t)
	a := assembleFar(t, far(disks...))
	local := &countsDrops{Disk: disks[0]}
	a.Members[0].Provider = local
	l, err := a.Take(t.Context(), quickly("here"))
	if err != nil {
		t.Fatal(err)
	}
	before := local.drops.Load()
	if before == 0 {
		t.Error("taken from what a cache has")
	}
	for begin := leaseOn(t, disks[0]).Sequence; leaseOn(t, disks[0]).Sequence < begin+3; {
		runtime.Gosched()
	}
	if n := local.drops.Load(); n != before {
		t.Errorf("%d times", n-before)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// countsDrops is a disk with a cache in front.
type countsDrops struct {
	*disktest.Disk
	drops atomic.Int64
}

func (d *countsDrops) DropCache() error {
	d.drops.Add(1)
	return d.Disk.DropCache()
}

func TestWaitingForAnotherHostsLeaseIsToldAndEnds(t *testing.T) {
	disks := farVolume(t)
	v := openLeased(t, quickly("dead"), Config{}, far(disks...))
	v.KeepLease()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	lc := quickly("here")
	lc.Settle = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	lc.Waits = func(owner LeaseOwner, until time.Time) {
		if left := time.Until(until); owner.String() != "dead" || left < time.Hour {
			t.Errorf("waits for %v, %v", owner, left)
		}
		cancel()
	}
	if _, err := assembleFar(t, far(disks...)).Take(ctx, lc); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	lc.Waits, lc.TakeOver = nil, true
	v = openLeased(t, lc, Config{}, far(disks...))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWhoWritesAnotherMapHasTheLeaseBehindIt: it is in the new place alone then, before the
// map is written, and what is written where it was stays.
func TestWhoWritesAnotherMapHasTheLeaseBehindIt(t *testing.T) {
	disks := farVolume(t)
	a := assembleFar(t, far(disks...))
	l, err := a.Take(t.Context(), quickly("here"))
	if err != nil {
		t.Fatal(err)
	}
	m := a.Members[0].Metadata
	was, _ := ondisk.LeaseOffset(m, disks[0].SectorSize())
	m.ChunkReserved += 2
	if err := l.MoveTo(a.Members[0].Provider, m); err != nil {
		t.Fatal(err)
	}
	others := bytes.Repeat([]byte{7}, ondisk.LeaseSize)
	if _, err := disks[0].WriteAt(others, was); err != nil {
		t.Fatal(err)
	}
	if err := geomlib.StoreMetadata(disks[0], m); err != nil {
		t.Fatal(err)
	}
	for begin := leaseOn(t, disks[0]).Sequence; leaseOn(t, disks[0]).Sequence < begin+3; {
		runtime.Gosched()
	}
	if err := l.Close(); err != nil || l.Lost() != nil || !leaseOn(t, disks[0]).Released {
		t.Errorf("%v, %v, %+v", err, l.Lost(), leaseOn(t, disks[0]))
	}
	b := make([]byte, ondisk.LeaseSize)
	if _, err := disks[0].ReadAt(b, was); err != nil || !bytes.Equal(b, others) {
		t.Errorf("where the lease was something is written: %v", err)
	}
}

// TestAVolumeThatIsTakenOverGoesOnWithTheLease: a process reads beside one that dies, has
// the lease of that one when it may write, and writes nothing before.
func TestAVolumeThatIsTakenOverGoesOnWithTheLease(t *testing.T) {
	disks := farVolume(t)
	var noted uint64
	lc := quickly("here")
	lc.Note = func(owner uint64) error { noted = owner; return nil }
	v := openLeased(t, lc, Config{}, far(disks...))
	data := bytes.Repeat([]byte("data"), 128)
	if _, err := v.WriteAt(data, 5*jobChunk); err != nil {
		t.Fatal(err)
	}
	v.KeepLease()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Open(assembleFar(t, far(disks...)), Config{DeferWrites: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := next.ReadAt(got, 5*jobChunk); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read before it is active: %v", err)
	}
	written := make(chan error, 1)
	go func() { _, err := next.WriteAt(data, 9*jobChunk); written <- err }()
	if _, has := next.Lease(); has {
		t.Error("it has a lease before it is active")
	}
	before := leaseOn(t, disks[0])
	ps := far(disks...)
	a := assembleFar(t, ps)
	lc.Last, lc.Settle = noted, time.Hour // which is not waited for
	l, err := a.Take(t.Context(), lc)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-written:
		t.Errorf("it wrote before it was active: %v", err)
	default:
	}
	next.UseLease(l)
	var members []geomlib.Provider
	for _, p := range ps {
		members = append(members, p)
	}
	if err := next.Activate(members); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if s, has := next.Lease(); !has || s.Left <= 0 || leaseOn(t, disks[0]).Owner != before.Owner {
		t.Errorf("%+v, %t, on the disk %+v", s, has, leaseOn(t, disks[0]))
	}
	if err := next.Close(); err != nil || !leaseOn(t, disks[0]).Released {
		t.Errorf("%v, %+v", err, leaseOn(t, disks[0]))
	}
}

// Of a volume that has components here and elsewhere: the system tells of what was lost to the
// lease's flush, perhaps, and to nobody else.
func TestALeaseWhoseFlushFailsFailsTheComponent(t *testing.T) {
	disks := farVolume(t)
	here, there := disks[0], far(disks[1])[0]
	a := assembleFar(t, far(disks...))
	for i := range a.Members {
		a.Members[i].Provider = []geomlib.Provider{here, there}[i]
	}
	l, err := a.Take(t.Context(), quickly("here"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(a, Config{Lease: l})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	here.FailNth(disktest.Flush, 1, disktest.Completed(syscall.EIO)) // nobody but the lease flushes
	for end := time.Now().Add(time.Minute); !v.Status().Components[0].FlushFailed; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the component has not failed")
		}
	}
	if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
		t.Errorf("flush: %v", err)
	}
}
