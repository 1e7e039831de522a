package virstor

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// The system tells of a lost write once, to the flush that meets it. A flush for
// metadata may be that one, and what clients wrote is lost all the same.
func TestAFlushThatFailsForMetadataFailsThoseOfClients(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	a.FailNth(disktest.Flush, 1, syscall.EIO)
	if err := v.Add([]geomlib.Provider{b}, AddOptions{}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("add whose flush of component 0 fails: %v", err)
	}
	for i := range 2 {
		if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
			t.Errorf("flush %d after it: %v", i, err)
		}
	}
	_ = v.Close() // says the same
}

func TestAFlushThatFailsForTheMapFailsThoseOfClients(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, v.Flush())
	remove := a.FailRange(disktest.Write, 0, 512, syscall.EIO)
	if err := <-startWrite(v, crashChunk, 2).done; !errors.Is(err, syscall.EIO) {
		t.Fatalf("write whose map sector fails: %v", err)
	}
	remove()
	mustDo(t, <-startWrite(v, 0, 3).done) // is lost
	a.FailNth(disktest.Flush, 1, syscall.EIO)
	if err := <-startWrite(v, crashChunk, 4).done; !errors.Is(err, ErrDegraded) {
		t.Fatalf("write while the map cannot be flushed: %v", err)
	}
	if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
		t.Errorf("flush of a write that was lost to the map's flush: %v", err)
	}
	_ = v.Close()
}

// A chunk that a discard freed is of use when component 0 is flushed. If that
// fails, who waits for it is told.
func TestAWriteDoesNotWaitForChunksThatCannotBecomeFree(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{WhenFull: Fail}, []*disktest.Disk{a})
	mustDo(t, err)
	n := int64(0)
	for ; ; n++ {
		if err := <-startWrite(v, n*crashChunk, 1).done; errors.Is(err, ErrNoSpace) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	a.FailFrom(disktest.Flush, 1, syscall.EIO)
	mustDo(t, v.Discard(0, crashChunk))
	within(t, 20*time.Second, "a write that needs the freed chunk", func() {
		if err := <-startWrite(v, (n+1)*crashChunk, 2).done; err == nil {
			t.Error("succeeded on a chunk that is not free")
		}
	})
	_ = v.Close()
}

// A map sector that could not be written for sure may give back, after a crash,
// what the volume says is not allocated.
func TestZeroesAreNotPromisedWhereTheMapIsInDoubt(t *testing.T) {
	for _, detect := range []bool{false, true} {
		a := disktest.New("a", 16*crashChunk, 512).FillJunk(1)
		labelled(t, 64, a)
		v, err := openDisks(Config{DetectZeroes: detect}, []*disktest.Disk{a})
		mustDo(t, err)
		zero := func() error {
			if detect {
				return v.do(OpWrite, FUA, make([]byte, unit), crashChunk, unit)
			}
			return v.WriteZeroes(crashChunk, unit, FUA)
		}
		rec := disktest.Record(a)
		after := func() uint64 {
			t.Helper()
			w, err := openDisks(Config{}, rec.State(rec.Len(), disktest.All))
			mustDo(t, err)
			b := make([]byte, unit)
			_, err = w.ReadAt(b, crashChunk)
			mustDo(t, err)
			_ = w.Close()
			return idOf(b)
		}
		remove := a.FailRange(disktest.Write, 0, 512, disktest.Completed(syscall.EIO))
		if err := <-startWrite(v, crashChunk, 2).done; !errors.Is(err, syscall.EIO) {
			t.Fatalf("write whose map sector fails: %v", err)
		}
		if after() == 0 {
			t.Fatal("the map sector does not hold what is in doubt: nothing is tested")
		}
		if err := zero(); !errors.Is(err, ErrDegraded) {
			t.Errorf("detect %v: zeros that a crash would undo: %v", detect, err)
		}
		remove()
		mustDo(t, <-startWrite(v, 2*crashChunk, 3).done) // the map is mended first
		mustDo(t, zero())
		if got := after(); got != 0 {
			t.Errorf("detect %v: %#x after a crash, where zeros were acknowledged", detect, got)
		}
		mustDo(t, v.Close())
	}
}

func TestZeroesThatAreToStayBackedKeepTheirChunk(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	defer v.Close()
	const half = crashChunk / 2
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, v.Discard(0, half))
	mustDo(t, v.WriteZeroes(0, half, NoHole))
	mustDo(t, v.Discard(half, half))
	if n := v.allocated.Load(); n != 1 {
		t.Errorf("%d chunks allocated, want that of the zeros", n)
	}
	mustDo(t, v.Discard(0, half)) // now all of it is given up
	if n := v.allocated.Load(); n != 0 {
		t.Errorf("%d chunks allocated, want none", n)
	}
}

// TestZeroesOfMuchAreAllocatedStepByStep: a commit takes as many chunks as it may, and
// the request is done when the last one was, or fails with what there was room for.
func TestZeroesOfMuchAreAllocatedStepByStep(t *testing.T) {
	for _, c := range []struct {
		what  string
		chunk int64 // of which there is one already
		from  int64
		n     int64
	}{
		{"nothing is there", -1, 0, 20 * crashChunk},
		{"the first is there", 0, 0, 20 * crashChunk},
		{"one in the middle is there", 10, 0, 20 * crashChunk},
		{"the last is there", 19, 0, 20 * crashChunk},
		{"from and to the middle of a chunk", 3, 4096, 19*crashChunk + 8192},
		{"to the middle of a sector", 4, crashChunk + 1, 12 * crashChunk},
	} {
		a := disktest.New("a", 32*crashChunk, 512).FillJunk(1)
		labelled(t, 64, a)
		v, err := openDisks(Config{WhenFull: Fail}, []*disktest.Disk{a})
		mustDo(t, err)
		v.zeroesReach = 3*crashChunk + 1
		ones := make([]byte, crashChunk)
		fill(ones, 1)
		if c.chunk >= 0 {
			_, err := v.WriteAt(ones, c.chunk*crashChunk)
			mustDo(t, err)
		}
		mustDo(t, v.WriteZeroes(c.from, c.n, NoHole))
		got := make([]byte, c.n)
		if _, err := v.ReadAt(got, c.from); err != nil || !isZero(got) {
			t.Errorf("%s: it does not read as zeros: %v", c.what, err)
		}
		most := (c.from+c.n+crashChunk-1)/crashChunk - c.from/crashChunk
		if n := v.allocated.Load(); n != most {
			t.Errorf("%s: %d chunks allocated, want %d", c.what, n, most)
		}
		if h := v.CommitSizes(); h.Count() < uint64(most-1)/3 {
			t.Errorf("%s: %d commits, where each may take 3 of %d chunks", c.what, h.Count(), most)
		}
		if err := v.WriteZeroes(0, 60*crashChunk, NoHole); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%s: more than there is: %v", c.what, err)
		}
		mustDo(t, v.Close())
	}
}

// Close fails what waits, also what begins to wait while Close looks.
func TestNothingIsLeftWaitingByClose(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	for n := range int64(20) {
		w := startWrite(v, n*crashChunk, 1)
		if v.alloc.Available() > 0 {
			mustDo(t, <-w.done)
		}
	}
	_ = v.FailHeld()
	v.cond.close() // as Close does, which has looked already
	within(t, 20*time.Second, "a write that finds no space", func() {
		if err := <-startWrite(v, 30*crashChunk, 1).done; !errors.Is(err, ErrNoSpace) {
			t.Errorf("write: %v", err)
		}
	})
	v.cond.word.Store(0)
	mustDo(t, v.Close())

	v, err = openDisks(Config{DeferWrites: true}, []*disktest.Disk{a})
	mustDo(t, err)
	v.cond.close()
	within(t, 20*time.Second, "a write to a volume that was never activated", func() {
		if err := <-startWrite(v, 0, 1).done; !errors.Is(err, ErrClosed) {
			t.Errorf("write: %v", err)
		}
	})
	v.cond.word.Store(0)
	mustDo(t, v.Close())
}

// A chunk whose move could not be noted stays locked until the map can be
// written. Who waits for it must not keep the volume from closing, nor be told
// of a write that could come back as the other copy.
func TestCloseEndsWhileTheMapCannotBeWritten(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{}, []*disktest.Disk{a, b})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, v.Flush())
	ph := v.chunks.Load(0).Phys()
	to, ok := v.alloc.TakeFrom(1)
	if !ok {
		t.Fatal("no chunk to move to")
	}
	a.FailRange(disktest.Write, 0, 512, syscall.EIO)
	if _, err := v.moveChunk(0, ph, to, make([]byte, crashChunk)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("move whose map sector fails: %v", err)
	}
	read := &asyncWrite{done: make(chan error, 1)}
	read.r = Request{Op: OpRead, Length: unit, Data: make([]byte, unit), Done: read}
	v.Submit(&read.r)
	write := startWrite(v, 0, 2)
	part := &asyncWrite{done: make(chan error, 1)}
	part.r = Request{Op: OpWrite, Offset: 3, Length: 5, Data: make([]byte, 5), Done: part}
	v.Submit(&part.r)
	zeroes := &asyncWrite{done: make(chan error, 1)}
	zeroes.r = Request{Op: OpWriteZeroes, Length: unit, Done: zeroes}
	v.Submit(&zeroes.r)
	within(t, 20*time.Second, "close", func() { _ = v.Close() })
	if err := <-read.done; err != nil || idOf(read.r.Data) != 1 { // both copies hold the same
		t.Errorf("read: %d, %v", idOf(read.r.Data), err)
	}
	for what, w := range map[string]*asyncWrite{"write": write, "write of a part of a sector": part, "write zeroes": zeroes} {
		if err := <-w.done; !errors.Is(err, ErrDegraded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	a.Heal()
	if got := unitAt(t, []*disktest.Disk{a, b}, 0); got != 1 {
		t.Errorf("%d after a restart", got)
	}
}

// Of a discard that spans several map sectors, one can fail and the others be
// written: memory has to agree with each of them.
func TestADiscardOfWhichAMapSectorFailsIsDoneWhereItIsWritten(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 256, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	const far = 130 * crashChunk // two map sectors on
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, <-startWrite(v, far, 2).done)
	mustDo(t, v.Flush())
	rec := disktest.Record(a)
	remove := a.FailRange(disktest.Write, 1024, 512, syscall.EIO)
	if err := v.Discard(0, 256*crashChunk); !errors.Is(err, syscall.EIO) {
		t.Fatalf("discard: %v", err)
	}
	remove()
	b := make([]byte, unit)
	fill(b, 3)
	for _, off := range []int64{0, far} {
		mustDo(t, v.do(OpWrite, FUA, b, off, unit))
	}
	after, err := openDisks(Config{}, rec.State(rec.Len(), func(int, []disktest.Op) []disktest.Part { return nil }))
	mustDo(t, err)
	for _, off := range []int64{0, far} {
		if _, err := after.ReadAt(b, off); err != nil || idOf(b) != 3 {
			t.Errorf("at %d: %d, %v, where 3 was acknowledged with FUA", off, idOf(b), err)
		}
	}
	_ = after.Close()
	mustDo(t, v.Close())
}

// What a degraded volume refuses to do to its map is not done in memory either.
func TestADiscardThatIsRefusedWhileDegradedChangesNothing(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	remove := a.FailRange(disktest.Write, 0, 512, syscall.EIO)
	if err := <-startWrite(v, crashChunk, 2).done; !errors.Is(err, syscall.EIO) {
		t.Fatalf("write whose map sector fails: %v", err)
	}
	if err := v.Discard(0, crashChunk); !errors.Is(err, ErrDegraded) {
		t.Fatalf("discard while degraded: %v", err)
	}
	b := make([]byte, unit)
	if _, err := v.ReadAt(b, 0); err != nil || idOf(b) != 1 {
		t.Errorf("read: %d, %v", idOf(b), err)
	}
	mustDo(t, <-startWrite(v, 0, 3).done)
	ph := v.chunks.Load(0).Phys()
	to, ok := v.alloc.TakeFrom(0)
	if !ok {
		t.Fatal("no chunk to move to")
	}
	if _, err := v.moveChunk(0, ph, to, make([]byte, crashChunk)); !errors.Is(err, ErrDegraded) {
		t.Fatalf("move while degraded: %v", err)
	}
	if free, _ := v.alloc.TakeFrom(0); free != to {
		t.Errorf("the next free chunk is %v, want %v, to which nothing was moved", free, to)
	} else {
		v.alloc.Put(to)
	}
	within(t, 20*time.Second, "an overwrite of a chunk that was not moved", func() {
		mustDo(t, <-startWrite(v, 0, 4).done)
	})
	remove()
	mustDo(t, <-startWrite(v, 2*crashChunk, 5).done)
	if _, err := v.ReadAt(b, 0); err != nil || idOf(b) != 4 {
		t.Errorf("read after the map was mended: %d, %v", idOf(b), err)
	}
	mustDo(t, v.Stop())
}

// A component that takes another's index keeps its chunks, also when that could
// not be noted at first.
func TestARemovalWhoseMapSectorFailsGivesNoChunkOutTwice(t *testing.T) {
	var disks []*disktest.Disk
	for _, name := range []string{"a", "b", "c"} {
		disks = append(disks, disktest.New(name, 16*crashChunk, 512))
	}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{Alloc: Spread, WhenFull: Fail}, disks)
	mustDo(t, err)
	for vc := range int64(3) { // one on each
		mustDo(t, <-startWrite(v, vc*crashChunk, uint64(vc)+1).done)
	}
	mustDo(t, v.Discard(crashChunk, crashChunk))
	remove := disks[0].FailRange(disktest.Write, 0, 512, syscall.EIO)
	if err := v.Remove("b"); !errors.Is(err, syscall.EIO) {
		t.Fatalf("remove whose map sector fails: %v", err)
	}
	remove()
	written := []int64{0, 2}
	for vc := int64(3); ; vc++ {
		if err := <-startWrite(v, vc*crashChunk, uint64(vc)+1).done; errors.Is(err, ErrNoSpace) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		written = append(written, vc)
	}
	b := make([]byte, unit)
	places := make(map[alloc.Phys]int64)
	for _, vc := range written {
		if _, err := v.ReadAt(b, vc*crashChunk); err != nil || idOf(b) != uint64(vc)+1 {
			t.Errorf("virtual chunk %d holds %d, %v", vc, idOf(b), err)
		}
		ph := v.chunks.Load(uint64(vc)).Phys()
		if ph.Comp == 2 {
			ph.Comp = 1 // which is the same one now
		}
		if other, ok := places[ph]; ok {
			t.Errorf("virtual chunks %d and %d are both at %v", other, vc, ph)
		}
		places[ph] = vc
	}
	mustDo(t, v.Close())
	for _, vc := range written {
		if got := unitAt(t, disks, vc*crashChunk); got != uint64(vc)+1 {
			t.Errorf("virtual chunk %d holds %d after a restart", vc, got)
		}
	}
}
