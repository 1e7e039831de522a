package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// tasting is a kernel whose event thread tastes devices.
var tasting = gatetest.Options{Taste: true}

func TestAVolumeIsADeviceUntilItIsStopped(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 0xabcd, 8*mib, 4, 4)
	s.start(1, names...)
	st, ok := s.k.Status(0)
	if !ok || st.Info != "ggated-virstor 0000abcd" || st.Name != "ggate0" || st.MediaSize != 8*mib {
		t.Fatalf("%+v", st)
	}
	dev := s.open("ggate0")
	_, err := dev.WriteAt(bytes.Repeat([]byte{7}, 4096), 5*mib)
	must(t, err)

	_, err = s.d.Stop(context.Background(), "ggate0", control.StopRequest{})
	if control.KindOf(err) != control.Busy {
		t.Fatalf("stop of an open device: %v", err)
	}
	v := s.volumeStatus("ggate0")
	if p := v.Published[0]; p.Kind != control.Gate || p.Name != "ggate0" || p.Mode != (control.Mode{Read: 1, Write: 1}) {
		t.Fatalf("%+v", p)
	}
	b := make([]byte, 4096)
	_, err = dev.ReadAt(b, 5*mib)
	must(t, err)
	if b[0] != 7 {
		t.Fatal("read something else")
	}
	must(t, dev.Close())
	r, err := s.d.Stop(context.Background(), "vol", control.StopRequest{})
	must(t, err)
	if !r.HandedBack {
		t.Fatalf("%+v", r)
	}
	if _, ok := s.k.Status(0); ok || len(s.records()) != 0 {
		t.Fatalf("the unit or its record is still there: %v", s.records())
	}
}

func TestStopByForceTakesAnOpenDeviceAway(t *testing.T) {
	s := newSite(t, tasting)
	s.start(1, s.label("vol", 1, 8*mib, 4, 4)...)
	dev := s.open("ggate0")
	_, err := s.d.Stop(context.Background(), "vol", control.StopRequest{Force: true})
	must(t, err)
	if _, err := dev.ReadAt(make([]byte, sector), 0); !errors.Is(err, gate.ENXIO) {
		t.Fatalf("read from a device that is gone: %v", err)
	}
	if _, ok := s.k.Peek(0); ok {
		t.Fatal("the unit is still there")
	}
}

func TestADaemonThatEndsLeavesOpenDevicesAndDestroysTheRest(t *testing.T) {
	s := newSite(t, tasting)
	used := s.label("used", 1, 8*mib, 4, 4)
	idle := s.label("idle", 2, 8*mib, 4, 4)
	s.start(2, append(used, idle...)...)
	node := s.volumeStatus("used").Published[0].Name
	dev := s.open(node)
	must(t, s.d.Close())
	s.d = nil
	if n := len(s.records()); n != 1 {
		t.Fatalf("%d records", n)
	}
	// Meanwhile the file system goes on.
	c := gatetest.NewCall()
	c.Cmd, c.Offset, c.Length, c.Data = gate.Write, 0, 4096, bytes.Repeat([]byte{9}, 4096)
	dev.Issue(c)
	s.start(2, append(used, idle...)...)
	must(t, c.Wait())
	if got := s.volumeStatus("used").Published[0].Name; got != node {
		t.Fatalf("%s became %s", node, got)
	}
	must(t, dev.Close())
}

func TestAnUpgradeKeepsEveryDevice(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 1, 8*mib, 4, 4)
	s.start(1, names...)
	must(t, s.d.Leave())
	if _, ok := s.k.Peek(0); !ok {
		t.Fatal("the unit is gone")
	}
	s.start(1, names...)
	if st, _ := s.k.Status(1); st.Name != "" {
		t.Fatal("a second unit was made")
	}
	s.open("ggate0")
}

// load writes to a device without pause. Nothing that it asks may fail.
type load struct {
	dev   *gatetest.Dev
	base  int64 // of this load's part of the device
	size  int64
	want  []byte
	count atomic.Int64
	ended atomic.Bool // err is set
	err   error
}

func newLoad(dev *gatetest.Dev, base, size int64) *load {
	return &load{dev: dev, base: base, size: size, want: make([]byte, size)}
}

func (l *load) run(stop <-chan struct{}, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	buf := make([]byte, 32<<10)
	defer l.ended.Store(true)
	for gen := uint64(1); l.err == nil; gen++ {
		select {
		case <-stop:
			return
		default:
		}
		n := (1 + rng.Int64N(int64(len(buf))/sector)) * sector
		off := rng.Int64N((l.size-n)/sector) * sector
		p := buf[:n]
		switch r := rng.IntN(20); {
		case r < 13:
			for i := range p {
				p[i] = byte(gen)
			}
			binary.LittleEndian.PutUint64(p, gen)
			_, l.err = l.dev.WriteAt(p, l.base+off)
			copy(l.want[off:], p)
		case r < 14:
			l.err = l.dev.Delete(l.base+off, n)
			if l.err == nil { // only whole chunks become zeros for certain
				_, l.err = l.dev.ReadAt(l.want[off:off+n], l.base+off)
			}
		case r < 15:
			l.err = l.dev.Flush()
		default:
			if _, l.err = l.dev.ReadAt(p, l.base+off); l.err == nil && !bytes.Equal(p, l.want[off:off+n]) {
				l.err = errors.New("read what was never written there")
			}
		}
		l.count.Add(1)
	}
}

func (l *load) verify(t *testing.T) {
	t.Helper()
	must(t, l.err)
	got := make([]byte, l.size)
	_, err := l.dev.ReadAt(got, l.base)
	must(t, err)
	if !bytes.Equal(got, l.want) {
		t.Fatal("the device holds something else than was written")
	}
}

func TestNoRequestFailsWhileDaemonsDieAndTakeOver(t *testing.T) {
	for _, opts := range []gatetest.Options{tasting, {Taste: true, SignalCancels: true, DeleteNeedsRoom: true}} {
		s := newSite(t, opts)
		names := s.label("vol", 1, 16*mib, 8, 8, 8)
		s.start(1, names...)
		dev := s.open("ggate0")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var loads []*load
		for i := range int64(4) {
			l := newLoad(dev, i*mib+i*sector, mib)
			loads = append(loads, l)
			wg.Go(func() { l.run(stop, uint64(i)) })
		}
		// A signal storm all the while.
		storm := make(chan struct{})
		go func() {
			defer close(storm)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					s.k.Signal(0)
				}
			}
		}()
		progress := func(n int64) {
			var from []int64
			for _, l := range loads {
				from = append(from, l.count.Load())
			}
			eventually(t, "the load goes on", func() bool {
				for i, l := range loads {
					if !l.ended.Load() && l.count.Load() < from[i]+n {
						return false
					}
				}
				return true
			})
		}
		for round := range 12 {
			progress(5)
			switch round % 4 {
			case 2:
				must(t, s.d.Leave())
			case 3:
				must(t, s.d.Close())
			default:
				s.crash()
			}
			s.start(1, names...)
		}
		progress(20)
		close(stop)
		wg.Wait()
		<-storm
		for _, l := range loads {
			l.verify(t)
		}
		must(t, dev.Flush())
		must(t, dev.Close())
		_, err := s.d.Stop(context.Background(), "vol", control.StopRequest{})
		must(t, err)
		s.d = nil
	}
}

func TestADeviceThatIsTastedWithoutADaemonIsTakenOver(t *testing.T) {
	s := newSite(t, tasting)
	a, b := s.label("a", 1, 8*mib, 4, 4), s.label("b", 2, 8*mib, 4, 4)
	s.start(2, append(a, b...)...)
	devs := []*gatetest.Dev{s.open("ggate0"), s.open("ggate1")}
	_, err := devs[0].WriteAt(bytes.Repeat([]byte{3}, 4096), 0)
	must(t, err)
	s.crash()
	// The last close of a writer has GEOM taste the device: nothing can be
	// opened for writing, and confxml not read, until somebody serves it.
	closed := make(chan error, 2)
	for _, d := range devs {
		go func() { closed <- d.Close() }()
	}
	eventually(t, "the taste waits", func() bool {
		x, _ := s.k.Peek(0)
		y, _ := s.k.Peek(1)
		return x.Waiting > 0 || y.Waiting > 0
	})
	s.start(2, append(a, b...)...)
	must(t, <-closed)
	must(t, <-closed)
	eventually(t, "both are writable", func() bool {
		return !s.volumeDeferred("a") && !s.volumeDeferred("b")
	})
	dev := s.open("ggate0")
	got := make([]byte, 4096)
	_, err = dev.ReadAt(got, 0)
	must(t, err)
	if got[0] != 3 {
		t.Fatal("lost")
	}
	_, err = dev.WriteAt(got, mib)
	must(t, err)
	must(t, dev.Close())
	_, err = s.d.Stop(context.Background(), "a", control.StopRequest{})
	must(t, err)
}

func (s *site) volumeDeferred(name string) bool {
	v, err := s.d.findVolume(name)
	must(s.t, err)
	return v.vol.Deferred()
}

func TestReadsAreServedWhileComponentsCannotBeOpenedForWriting(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	names := s.label("vol", 1, 8*mib, 4, 4)
	s.start(1, names...)
	dev := s.open("ggate0")
	_, err := dev.WriteAt(bytes.Repeat([]byte{3}, 4096), 0)
	must(t, err)
	s.crash()
	s.make()
	held := &heldOpener{opener: s.o, gate: make(chan struct{})}
	s.d.opener = newPatient(held, s.d.log)
	if n := s.d.ServeAll(names); n != 1 {
		t.Fatalf("%+v", s.d.problems)
	}
	w := gatetest.NewCall()
	w.Cmd, w.Length, w.Data = gate.Write, 4096, bytes.Repeat([]byte{4}, 4096)
	dev.Issue(w)
	got := make([]byte, 4096)
	_, err = dev.ReadAt(got, 2*mib)
	must(t, err)
	_, err = s.d.Stop(context.Background(), "vol", control.StopRequest{})
	if control.KindOf(err) != control.Busy {
		t.Fatalf("stop during a takeover: %v", err)
	}
	select {
	case <-w.Done():
		t.Fatal("a write was answered before the volume was writable")
	default:
	}
	close(held.gate)
	must(t, w.Wait())
	_, err = dev.ReadAt(got, 0)
	must(t, err)
	if got[0] != 4 {
		t.Fatal("the write is not there")
	}
	must(t, dev.Close())
}

// What a volume was read from until it was taken over is as much an open disk as what it is
// written to since: it is closed once, and with the component.
func TestATakeoverLeavesNothingOpenOfAComponentThatIsRemoved(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	names := s.label("vol", 1, 8*mib, 4, 4, 4)
	s.start(1, names...)
	dev := s.open("ggate0")
	s.crash()
	s.start(1, names...)
	eventually(t, "the volume is taken over", func() bool { return !s.volumeDeferred("vol") })
	must(t, s.d.Remove(context.Background(), "vol", control.RemoveRequest{Providers: names[1:2]}))
	if n := s.o.open(names[1]); n != 0 {
		t.Errorf("%s is open %d times", names[1], n)
	}
	_, err := dev.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	must(t, dev.Close())
	must(t, s.d.Close())
	for _, name := range names {
		if n := s.o.open(name); n != 0 {
			t.Errorf("%s is open %d times", name, n)
		}
	}
	s.d = nil
}

func TestADaemonThatEndsBeforeATakeoverIsDoneClosesEverythingOnce(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	names := s.label("vol", 1, 8*mib, 4, 4)
	s.start(1, names...)
	dev := s.open("ggate0")
	s.crash()
	s.make()
	held := &heldOpener{opener: s.o, gate: make(chan struct{})}
	s.d.opener = newPatient(held, s.d.log)
	if n := s.d.ServeAll(names); n != 1 {
		t.Fatalf("%+v", s.d.problems)
	}
	s.d.StopWaiting()
	must(t, s.d.Leave())
	s.d = nil
	for _, name := range names {
		if n := s.o.open(name); n != 0 {
			t.Errorf("%s is open %d times", name, n)
		}
	}
	close(held.gate)
	s.start(1, names...)
	_, err := dev.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	must(t, dev.Close())
}

// heldOpener opens nothing for writing before gate is closed, and then fails
// once.
type heldOpener struct {
	*opener
	gate   chan struct{}
	failed atomic.Bool
}

func (o *heldOpener) Open(name string, ro bool, n int) (p geomlib.Provider, err error) {
	<-o.gate
	if !o.failed.Swap(true) {
		return nil, errors.New("not yet")
	}
	return o.opener.Open(name, ro, n)
}

func TestWhichUnitIsOurs(t *testing.T) {
	info := "ggated-virstor 00000001"
	foreign := func(s *site, name, info string) int {
		u, err := s.g.Create(gate.CreateOptions{Name: name, Unit: gate.UnitAuto, MediaSize: 8 * mib, SectorSize: sector, Info: info})
		must(s.t, err)
		return u
	}
	for _, c := range []struct {
		name    string
		prepare func(*site)
		want    string // the node, or part of the problem
		fails   bool
	}{
		{name: "nothing there", prepare: func(*site) {}, want: "ggate0"},
		{name: "unit taken by another", prepare: func(s *site) { foreign(s, "", "") }, want: "ggate1"},
		{name: "stale record", prepare: func(s *site) { s.writeRecord(1, `{"unit":5,"name":"ggate5","made":true}`) }, want: "ggate0"},
		{name: "record of another's unit", prepare: func(s *site) {
			foreign(s, "", "somebody else")
			s.writeRecord(1, `{"unit":0,"name":"ggate0","made":true}`)
		}, want: "ggate1"},
		{name: "record missing", prepare: func(s *site) { foreign(s, "", ""); foreign(s, "virstor/old", info) }, want: "virstor/old"},
		{name: "record names another unit than the one that is ours", prepare: func(s *site) {
			foreign(s, "", "other")
			foreign(s, "", info)
			s.writeRecord(1, `{"unit":0,"name":"ggate0","made":true}`)
		}, want: "ggate1"},
		{name: "died between record and CREATE", prepare: func(s *site) { s.writeRecord(1, `{"unit":0,"name":"ggate0","made":false}`) }, want: "ggate0"},
		{name: "died after CREATE", prepare: func(s *site) {
			foreign(s, "virstor/x", info)
			s.writeRecord(1, `{"unit":-1,"name":"virstor/x","made":false}`)
		}, want: "virstor/x"},
		{name: "two units with our info", prepare: func(s *site) { foreign(s, "", info); foreign(s, "", info) }, want: "2 units", fails: true},
		{name: "two units with our info, one recorded", prepare: func(s *site) {
			foreign(s, "", info)
			foreign(s, "", info)
			s.writeRecord(1, `{"unit":1,"name":"ggate1","made":true}`)
		}, want: "ggate1"},
		{name: "damaged record", prepare: func(s *site) { s.writeRecord(1, `{"unit":`) }, want: "not a record", fails: true},
		{name: "name of ours taken", prepare: func(s *site) { s.name = "virstor/"; foreign(s, "virstor/vol", "x") }, want: "taken", fails: true},
		{name: "fixed unit taken", prepare: func(s *site) { s.unit = 0; foreign(s, "", "x") }, want: "taken", fails: true},
		{name: "fixed unit", prepare: func(s *site) { s.unit = 7 }, want: "ggate7"},
		{name: "named after the volume", prepare: func(s *site) { s.name = "virstor/" }, want: "virstor/vol"},
		{name: "node of another class", prepare: func(s *site) { s.name = "virstor/"; s.k.AddProvider("VIRSTOR", "virstor/vol") },
			want: "class VIRSTOR", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, gatetest.Options{})
			names := s.label("vol", 1, 8*mib, 4, 4)
			c.prepare(s)
			before := unitsOf(s)
			s.make()
			n := s.d.ServeAll(names)
			if c.fails {
				if n != 0 || !strings.Contains(s.d.problems[0].Reason, c.want) {
					t.Fatalf("%d served, %+v", n, s.d.problems)
				}
				if after := unitsOf(s); !slices.Equal(before, after) {
					t.Fatalf("units %v became %v", before, after)
				}
				return
			}
			if n != 1 {
				t.Fatalf("%+v", s.d.problems)
			}
			if got := s.volumeStatus("vol").Published[0].Name; got != c.want {
				t.Fatalf("published as %s, want %s", got, c.want)
			}
			dev := s.open(c.want)
			_, err := dev.WriteAt(make([]byte, sector), 0)
			must(t, err)
			must(t, dev.Close())
		})
	}
}

func unitsOf(s *site) (us []string) {
	for n := range 8 {
		if st, ok := s.k.Peek(n); ok {
			us = append(us, st.Name+st.Info)
		}
	}
	return us
}

func TestARecordIsTrustedWhileGEOMIsBusy(t *testing.T) {
	for _, record := range []string{`{"unit":0,"name":"ggate0","made":true}`, `{"unit":0,"name":"ggate0","made":false}`} {
		s := newSite(t, tasting)
		names := s.label("vol", 1, 8*mib, 4, 4)
		// CREATE, and death before anything is served: GEOM tastes.
		_, err := s.g.Create(gate.CreateOptions{Unit: 0, MediaSize: 8 * mib, SectorSize: sector, Info: "ggated-virstor 00000001"})
		must(t, err)
		s.writeRecord(1, record)
		s.start(1, names...)
		dev := s.open("ggate0")
		_, err = dev.WriteAt(make([]byte, sector), 0)
		must(t, err)
		must(t, dev.Close())
		must(t, s.d.Close())
		s.d = nil
	}
}

func TestOneVolumesTroubleIsNotAnothers(t *testing.T) {
	s := newSite(t, tasting)
	good, bad := s.label("good", 1, 8*mib, 4, 4), s.label("bad", 2, 8*mib, 4, 4)
	s.make()
	s.o.fail = map[string]error{"bad1": errors.New("no medium")}
	if n := s.d.ServeAll(append(bad, good...)); n != 1 {
		t.Fatalf("%d served", n)
	}
	dev := s.open(s.volumeStatus("good").Published[0].Name)
	_, err := dev.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	st, err := s.d.Status(context.Background())
	must(t, err)
	if len(st.Problems) == 0 {
		t.Fatal("no problem is told")
	}
	// Mended, it is served beside the other.
	s.o.fail = nil
	r, err := s.d.Serve(context.Background(), control.ServeRequest{Providers: bad})
	must(t, err)
	if len(r.Volumes) != 1 {
		t.Fatalf("%+v", r)
	}
	must(t, dev.Close())
	must(t, s.d.Close())
	if want := []int{1, 2, 1, 0}; !slices.Equal(s.serving, want) {
		t.Errorf("told to serve %v devices, want %v", s.serving, want)
	}
}

func TestComponentsOnADeviceOfOursAreRefused(t *testing.T) {
	s := newSite(t, tasting)
	s.start(1, s.label("vol", 1, 8*mib, 4, 4)...)
	s.disk("ggate0", 4*mib) // what the device looks like from below
	err := s.d.Add(context.Background(), "vol", control.AddRequest{Providers: []string{"ggate0"}})
	if err == nil || !strings.Contains(err.Error(), "itself serves") {
		t.Fatal(err)
	}
}

func TestAFullVolumeHoldsWritesThroughACrashAndReadsGoOn(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 1, 64*mib, 2)
	s.start(1, names...)
	dev := s.open("ggate0")
	free := s.volumeStatus("vol").FreeChunks
	const chunk = 128 << 10
	var calls []*gatetest.Call
	for i := range free + 6 {
		c := gatetest.NewCall()
		c.Cmd, c.Offset, c.Length, c.Data = gate.Write, i*chunk, 4096, bytes.Repeat([]byte{byte(i + 1)}, 4096)
		dev.Issue(c)
		calls = append(calls, c)
	}
	held := func() bool { return s.volumeStatus("vol").Held.Count == 6 }
	check := func() {
		t.Helper()
		eventually(t, "six writes are held", held)
		b := make([]byte, 4096)
		for range 20 {
			_, err := dev.ReadAt(b, 60*mib)
			must(t, err)
			must(t, dev.Flush())
		}
	}
	check()
	s.crash()
	s.start(1, names...)
	check()
	s.disk("more", 4*mib)
	must(t, s.d.Add(context.Background(), "vol", control.AddRequest{Providers: []string{"more"}}))
	for _, c := range calls {
		must(t, c.Wait())
	}
	for i := range calls {
		b := make([]byte, 4096)
		_, err := dev.ReadAt(b, int64(i)*chunk)
		must(t, err)
		if b[0] != byte(i+1) || b[4095] != byte(i+1) {
			t.Fatalf("chunk %d holds %d", i, b[0])
		}
	}
	must(t, dev.Close())

	// The record knows the component that was added: a daemon that is told
	// nothing finds it.
	dev = s.open("ggate0")
	eventually(t, "the record has all components", func() bool {
		left, err := s.d.publishers[0].(publish.Durable).Leftovers()
		return err == nil && len(left[1]) == 2
	})
	s.crash()
	s.start(1)
	must(t, dev.Close())
}

func TestTheLastRoomIsTheReserve(t *testing.T) {
	s := newSite(t, tasting)
	s.volume.Reserve = 2
	names := s.label("vol", 1, 64*mib, 2)
	s.start(1, names...)
	dev := s.open("ggate0")
	const chunk = 128 << 10
	next := int64(0)
	write := func() *gatetest.Call {
		c := gatetest.NewCall()
		c.Cmd, c.Offset, c.Length, c.Data = gate.Write, next*chunk, 4096, make([]byte, 4096)
		next++
		dev.Issue(c)
		return c
	}
	for range s.volumeStatus("vol").FreeChunks - 2 {
		must(t, write().Wait())
	}
	first, second, third := write(), write(), write()
	eventually(t, "three writes are held", func() bool { return s.volumeStatus("vol").Held.Count == 3 })
	s.d.GiveLastRoom()
	must(t, first.Wait())
	must(t, second.Wait())
	if n := s.volumeStatus("vol").Held.Count; n != 1 {
		t.Errorf("%d writes are held", n)
	}
	s.disk("more", 4*mib)
	must(t, s.d.Add(context.Background(), "vol", control.AddRequest{Providers: []string{"more"}}))
	must(t, third.Wait())
	must(t, dev.Close())
}

func TestTheDeviceFollowsAResize(t *testing.T) {
	s := newSite(t, tasting)
	names := s.label("vol", 1, 8*mib, 8, 8)
	s.start(1, names...)
	v, err := s.d.findVolume("vol")
	must(t, err)
	must(t, v.vol.Resize(12*mib, false, virstor.JobOptions{}))
	eventually(t, "the device grows", func() bool {
		st, _ := s.k.Peek(0)
		return st.MediaSize == v.vol.Size() && st.MediaSize >= 12*mib
	})
}

func TestA128MiBDeleteIsOneRequest(t *testing.T) {
	s := newSite(t, gatetest.Options{DeleteNeedsRoom: true})
	s.start(1, s.label("vol", 1, 256*mib, 8)...)
	dev := s.open("ggate0")
	_, err := dev.WriteAt(bytes.Repeat([]byte{1}, mib), 3*mib)
	must(t, err)
	must(t, dev.Delete(0, 128*mib))
	b := make([]byte, mib)
	_, err = dev.ReadAt(b, 3*mib)
	must(t, err)
	if !bytes.Equal(b, make([]byte, mib)) {
		t.Fatal("the delete did nothing")
	}
}
