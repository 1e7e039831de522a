package virstor

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// labelled makes a volume of chunks of 128 KiB on disks full of junk.
func labelled(t testing.TB, chunks int64, disks ...*disktest.Disk) {
	t.Helper()
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: chunks * crashChunk, ChunkSize: crashChunk, ID: 9,
		ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for _, d := range disks {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: d.SectorSize()})
		ps = append(ps, d)
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := Label(t.Context(), ps, l, LabelOptions{}); err != nil {
		t.Fatal(err)
	}
}

// asyncWrite is one write under way.
type asyncWrite struct {
	r    Request
	done chan error
}

func (a *asyncWrite) Complete(r *Request) { a.done <- r.Err }

func startWrite(v *Volume, off int64, id uint64) *asyncWrite {
	a := &asyncWrite{done: make(chan error, 1)}
	b := make([]byte, unit)
	fill(b, id)
	a.r = Request{Op: OpWrite, Offset: off, Length: unit, Data: b, Done: a}
	v.Submit(&a.r)
	return a
}

// pendingNeighbour commits two chunks together, of which one cannot be flushed,
// and returns what the failed one reads as after power is lost.
func pendingNeighbour(t *testing.T, cfg Config) byte {
	t.Helper()
	a := disktest.New("a", 16*crashChunk, 512).FillJunk(1)
	b := disktest.New("b", 16*crashChunk, 512).FillJunk(2)
	labelled(t, 64, a, b)
	cfg.Alloc = Spread
	v, err := openDisks(cfg, []*disktest.Disk{a, b})
	if err != nil {
		t.Fatal(err)
	}
	rec := disktest.Record(a, b)
	// The first commit is held in its flush, so that the next two make one.
	reached, release := a.Block(disktest.Flush)
	first := startWrite(v, 0, 1)
	<-reached
	bad := startWrite(v, 1*crashChunk, 2)  // on b
	good := startWrite(v, 2*crashChunk, 3) // on a
	b.FailNth(disktest.Flush, 1, syscall.EIO)
	release()
	if err := <-first.done; err != nil {
		t.Fatal(err)
	}
	if err := <-bad.done; !errors.Is(err, ErrFlushFailed) {
		t.Fatalf("the write whose flush fails: %v", err)
	}
	if err := <-good.done; err != nil {
		t.Fatal(err)
	}
	states := rec.State(rec.Len(), func(disk int, ops []disktest.Op) []disktest.Part {
		if disk == 1 {
			return nil // the data that could not be flushed is gone
		}
		return disktest.All(disk, ops)
	})
	after, err := openDisks(Config{}, states)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, unit)
	if _, err := after.ReadAt(got, crashChunk); err != nil {
		t.Fatal(err)
	}
	_ = after.Close()
	_ = v.Close()
	return got[unit-1]
}

func TestAMapSectorHoldsNoEntryWhoseDataIsNotFlushed(t *testing.T) {
	if got := pendingNeighbour(t, Config{}); got != 0 {
		t.Errorf("a chunk that was never committed reads as %#x", got)
	}
	if got := pendingNeighbour(t, pendingEntries()); got == 0 {
		t.Error("the broken rule is not noticed")
	}
}

func TestZeroesWithFUAOutliveADiscardThatWasNotFlushed(t *testing.T) {
	for _, detect := range []bool{false, true} {
		a := disktest.New("a", 16*crashChunk, 512).FillJunk(1)
		labelled(t, 64, a)
		v, err := openDisks(Config{DetectZeroes: detect}, []*disktest.Disk{a})
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, unit)
		fill(b, 7)
		rec := disktest.Record(a)
		if _, err := v.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(v.Flush(), v.Discard(0, crashChunk)); err != nil {
			t.Fatal(err)
		}
		if detect {
			err = v.do(OpWrite, FUA, make([]byte, unit), 0, unit)
		} else {
			err = v.WriteZeroes(0, unit, FUA)
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := openDisks(Config{}, rec.State(rec.Len(), func(int, []disktest.Op) []disktest.Part { return nil }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := after.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if b[0] != 0 {
			t.Errorf("detect %v: zeros that were acknowledged with FUA are gone after loss of power", detect)
		}
		_ = after.Close()
		_ = v.Close()
	}
}

// faultRun does a fixed sequence of operations, going on after errors, and
// checks what it can read. It reports whether the fault of disk number on was met.
func faultRun(t *testing.T, on int, kind disktest.Kind, nth int64, fault error, sticky bool) (met bool) {
	t.Helper()
	sector := 512
	if kind == disktest.Read { // so that writes of units read
		sector = 4096
	}
	disks := []*disktest.Disk{
		disktest.New("a", 12*crashChunk, sector).FillJunk(1).SetCached(false).SetForgetful(true),
		disktest.New("b", 12*crashChunk, sector).FillJunk(2).SetCached(false).SetForgetful(true),
	}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{WhenFull: Fail, Workers: 2, Alloc: Spread}, disks)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen int64
	remove := disks[on].Inject(func(o disktest.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if o.Kind != kind {
			return nil
		}
		if seen++; seen == nth || sticky && seen > nth {
			met = true
			return fault
		}
		return nil
	})
	truth := make(map[int64][]uint64) // what a unit may hold
	older := make(map[int64][]uint64) // and what else after a restart, if a flush failed
	write := func(u int64, id uint64) {
		b := make([]byte, unit)
		fill(b, id)
		if truth[u] == nil {
			truth[u] = []uint64{zeroOp}
		}
		older[u] = append(older[u], truth[u]...)
		if _, err := v.WriteAt(b, u*unit); err != nil {
			truth[u] = append(truth[u], id)
		} else {
			truth[u] = []uint64{id}
		}
		// What is read is right, or an error.
		if _, err := v.ReadAt(b, u*unit); err == nil && !slices.Contains(truth[u], idOf(b)) {
			t.Errorf("unit %d reads as what operation %d wrote, allowed are %v", u, idOf(b), truth[u])
		}
	}
	id := uint64(1)
	for chunk := range int64(8) {
		for _, u := range []int64{0, 7, 255} {
			write(chunk*crashChunk/unit+u, id)
			id++
		}
		if chunk == 3 {
			if v.Flush() == nil {
				clear(older)
			}
			_ = v.Discard(1*crashChunk, crashChunk)
			for u := range truth {
				if u >= crashChunk/unit && u < 2*crashChunk/unit {
					truth[u] = append(truth[u], zeroOp)
				}
			}
		}
	}
	remove()
	readBack(t, v, truth, "in service")
	_ = v.Flush()
	if v.Close() != nil { // the disks forget what they failed to flush
		for u, ids := range older {
			truth[u] = append(ids, truth[u]...)
		}
	}
	again, err := openDisks(Config{}, disks)
	if err != nil {
		t.Fatalf("%s %d, %v: reopen: %v", kind, nth, fault, err)
	}
	readBack(t, again, truth, "after a restart")
	write2 := make([]byte, unit)
	if _, err := again.WriteAt(write2, 20*crashChunk); err != nil {
		t.Fatalf("%s %d, %v: write after a restart: %v", kind, nth, fault, err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	return met
}

func readBack(t *testing.T, v *Volume, truth map[int64][]uint64, when string) {
	t.Helper()
	b := make([]byte, unit)
	for u, ids := range truth {
		if _, err := v.ReadAt(b, u*unit); err != nil {
			t.Fatalf("%s: read of unit %d: %v", when, u, err)
		}
		w := view{per: 1, chunks: map[int64][]allowed{u: {{ids: ids}}}}
		if err := w.check(u, b); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
}

func TestEveryFailingRequestLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	faults := []error{syscall.EIO, syscall.ENOSPC, syscall.ENXIO, disktest.Partial{Done: 1024, Err: syscall.EIO}}
	injected := 0
	each := func(on int, kind disktest.Kind, fault error, sticky bool) {
		for nth := int64(1); ; nth++ {
			met := false
			within(t, time.Minute, fmt.Sprintf("%s %d of disk %d failing with %v", kind, nth, on, fault), func() {
				met = faultRun(t, on, kind, nth, fault, sticky)
			})
			if !met {
				return
			}
			injected++
		}
	}
	for on := range 2 {
		for _, kind := range []disktest.Kind{disktest.Read, disktest.Write, disktest.Flush, disktest.Delete} {
			for _, fault := range faults {
				each(on, kind, fault, false)
				each(on, kind, fault, true)
			}
		}
	}
	t.Logf("%d faults injected", injected)
	if injected < 50 {
		t.Errorf("only %d faults were met", injected)
	}
}

// within fails the test when f hangs.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: no end in %s", what, limit)
	}
}

func TestAFailedMapWriteStopsAllocationUntilItSucceeds(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	events := make(chan Event, 100)
	v, err := openDisks(Config{Events: func(e Event) { events <- e }}, []*disktest.Disk{a})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-startWrite(v, 0, 1).done; err != nil {
		t.Fatal(err)
	}
	remove := a.FailRange(disktest.Write, 0, 512, syscall.EIO)
	if err := <-startWrite(v, crashChunk, 2).done; !errors.Is(err, syscall.EIO) {
		t.Fatalf("write that needs the failing map sector: %v", err)
	}
	if !v.Status().Degraded {
		t.Error("not degraded")
	}
	if err := <-startWrite(v, 0, 3).done; err != nil {
		t.Errorf("overwrite while degraded: %v", err)
	}
	if err := <-startWrite(v, 2*crashChunk, 4).done; !errors.Is(err, ErrDegraded) {
		t.Errorf("allocation while degraded: %v", err)
	}
	remove()
	if err := <-startWrite(v, 2*crashChunk, 5).done; err != nil {
		t.Errorf("allocation after the map can be written: %v", err)
	}
	if v.Status().Degraded {
		t.Error("still degraded")
	}
	if err := v.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A move whose map write fails keeps its chunk locked until the map can be written.
// That must not keep the volume from closing.
func TestAVolumeClosesThoughAChunkIsLockedForGood(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	b := disktest.New("b", 16*crashChunk, 512)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{Alloc: Spread}, []*disktest.Disk{a, b})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, <-startWrite(v, crashChunk, 2).done) // on b
	a.FailRange(disktest.Write, 0, 512, syscall.EIO)
	mustDo(t, v.Evacuate([]string{"b"}, "", JobOptions{}))
	if s, _ := v.WaitJob(t.Context()); !errors.Is(s.Err, syscall.EIO) {
		t.Fatalf("evacuate: %v", s.Err)
	}
	whole := startWrite(v, crashChunk, 3)
	part := make([]byte, 100)
	waits := &asyncWrite{done: make(chan error, 1)}
	waits.r = Request{Op: OpWrite, Offset: crashChunk + 700, Length: 100, Data: part, Done: waits}
	v.Submit(&waits.r)
	within(t, time.Minute, "close", func() { _ = v.Close() })
	for _, w := range []*asyncWrite{whole, waits} {
		if err := <-w.done; !errors.Is(err, ErrDegraded) {
			t.Errorf("write to a chunk that is locked: %v", err)
		}
	}
	a.Heal()
	if got := unitAt(t, []*disktest.Disk{a, b}, crashChunk); got != 2 {
		t.Errorf("operation %d after a restart, want 2", got)
	}
}

func TestFlushesOfAComponentThatLostDataKeepFailing(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-startWrite(v, 0, 1).done; err != nil {
		t.Fatal(err)
	}
	a.FailNth(disktest.Flush, 1, syscall.EIO)
	for i := range 3 {
		if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
			t.Errorf("flush %d: %v", i, err)
		}
	}
	if _, err := v.ReadAt(make([]byte, unit), 0); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := v.Close(); err == nil {
		t.Error("close says that all is well")
	}
}

func TestDamagedMetadataIsRefusedNotFollowed(t *testing.T) {
	for name, damage := range map[string]func(*ondisk.Metadata){
		"no components":   func(m *ondisk.Metadata) { m.Count = 0 },
		"odd chunk size":  func(m *ondisk.Metadata) { m.ChunkSize = 12345 },
		"no chunk size":   func(m *ondisk.Metadata) { m.ChunkSize = 0 },
		"no virtual size": func(m *ondisk.Metadata) { m.VirtualSize = 0 },
		"huge reserve":    func(m *ondisk.Metadata) { m.ChunkReserved = 65535 },
	} {
		for _, version := range []uint32{ondisk.Version, ondisk.VersionFenced} {
			d := disktest.New("a", 16*crashChunk, 512)
			labelled(t, 64, d)
			m, err := geomlib.ReadMetadata(d)
			if err != nil {
				t.Fatal(err)
			}
			m.Version = version
			damage(&m)
			if err := geomlib.StoreMetadata(d, m); err != nil {
				t.Fatal(err)
			}
			a := Assemble([]Member{{d, m}})
			if len(a) != 1 || !errors.Is(a[0].Err, ErrDamaged) {
				t.Errorf("%s, version %d: %v", name, version, a[0].Err)
			}
		}
	}
}
