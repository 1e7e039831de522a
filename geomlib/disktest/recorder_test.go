package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
)

func TestAFlushCoversOnlyWhatReturnedBeforeItBegan(t *testing.T) {
	d := New("d", 1<<20, 512)
	rec := Record(d)
	mustWrite(t, d, 0, fill(512, 1))
	reached, release := d.Block(Flush)
	done := make(chan error)
	go func() { done <- d.Flush() }()
	<-reached
	mustWrite(t, d, 512, fill(512, 2))
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lost := rec.State(rec.Len(), None)[0]
	if got := read(t, lost, 0, 1024); got[0] != 1 || got[512] != 0 {
		t.Fatalf("after the flush %d and %d are durable", got[0], got[512])
	}
	if ops := rec.Pending(rec.Len(), 0); len(ops) != 1 || ops[0].Off != 512 {
		t.Fatal("pending:", ops)
	}
	mustFlush(t, d)
	if got := read(t, rec.State(rec.Len(), None)[0], 512, 512); got[0] != 2 {
		t.Fatal("the next flush did not cover it")
	}
}

func TestADiskWithoutACacheLosesNothing(t *testing.T) {
	d := New("d", 1<<20, 512).SetNoVolatileCache(true)
	rec := Record(d)
	mustWrite(t, d, 0, fill(512, 1))
	if err := d.Flush(); err != geomlib.ErrNotSupported {
		t.Fatal(err)
	}
	if got := read(t, rec.State(rec.Len(), None)[0], 0, 512); got[0] != 1 {
		t.Fatal("lost")
	}
	if got := read(t, rec.State(0, None)[0], 0, 512); got[0] != 0 {
		t.Fatal("there before it was written")
	}
}

func TestProcessDeathLeavesTheCachesAsTheyWere(t *testing.T) {
	d := New("d", 1<<20, 512)
	mustWrite(t, d, 0, fill(512, 1))
	rec := Record(d)
	mustWrite(t, d, 512, fill(512, 2))
	for name, s := range map[string]*Disk{"ProcessDeath": rec.ProcessDeath(rec.Len())[0], "Survivor": d.Survivor()} {
		again := Record(s)
		mustWrite(t, s, 1024, fill(512, 3))
		if got := read(t, s, 0, 1536); got[0] != 1 || got[512] != 2 || got[1024] != 3 {
			t.Errorf("%s: the next process sees %d %d %d", name, got[0], got[512], got[1024])
		}
		if got := read(t, again.State(0, None)[0], 0, 1024); got[0] != 0 || got[512] != 0 {
			t.Errorf("%s: %d %d left the cache unasked", name, got[0], got[512])
		}
		if got := read(t, again.State(1, Only(0))[0], 0, 1536); got[0] != 0 || got[512] != 0 || got[1024] != 3 {
			t.Errorf("%s: reordered to %d %d %d", name, got[0], got[512], got[1024])
		}
		mustFlush(t, s)
		if got := read(t, again.State(again.Len(), None)[0], 0, 1536); got[0] != 1 || got[512] != 2 || got[1024] != 3 {
			t.Errorf("%s: a flush left %d %d %d", name, got[0], got[512], got[1024])
		}
	}
}

func TestProcessDeathInTheMidstOfAWriteLeavesAPartOfIt(t *testing.T) {
	d := New("d", 1<<20, 512)
	rec := Record(d)
	mustWrite(t, d, 0, fill(512, 1))
	mustWrite(t, d, 512, fill(2048, 2))
	s := rec.ProcessDeathWithin(1, func(op Op) (from, to int64) { return 512, op.Len - 512 })[0]
	again := Record(s)
	want := []byte{1, 0, 2, 2, 0}
	for i, b := range want {
		if got := read(t, s, int64(i)*512, 512)[0]; got != b {
			t.Errorf("sector %d holds %d, want %d", i, got, b)
		}
	}
	if got := read(t, again.State(0, None)[0], 0, 512)[0]; got != 0 {
		t.Error("what the process did is durable unasked")
	}
	if got := read(t, again.State(0, Only(-1))[0], 1024, 512)[0]; got != 2 {
		t.Error("what was done in part is not in the cache")
	}
}

func TestPicksChooseOrderAndTears(t *testing.T) {
	d := New("d", 1<<20, 512)
	rec := Record(d)
	mustWrite(t, d, 0, fill(1024, 1))
	mustWrite(t, d, 0, fill(1024, 2))
	for _, c := range []struct {
		name string
		pick Pick
		want [2]byte
	}{
		{"none", None, [2]byte{0, 0}},
		{"all", All, [2]byte{2, 2}},
		{"the first", Only(0), [2]byte{1, 1}},
		{"reordered", Only(1, 0), [2]byte{1, 1}},
		{"torn", func(int, []Op) []Part { return []Part{{Index: 0}, {Index: 1, From: 512, To: 1024}} }, [2]byte{1, 2}},
		{"torn head", func(int, []Op) []Part { return []Part{{Index: 1, To: 512}} }, [2]byte{2, 0}},
	} {
		got := read(t, rec.State(rec.Len(), c.pick)[0], 0, 1024)
		if got[0] != c.want[0] || got[1023] != c.want[1] {
			t.Errorf("%s: %d %d, want %v", c.name, got[0], got[1023], c.want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a tear within a sector did not panic")
		}
	}()
	rec.State(rec.Len(), func(int, []Op) []Part { return []Part{{Index: 0, To: 100}} })
}

// TestStatesAreThoseAReplayOfTheLogGives checks every position of a random
// history against disks rebuilt from the log alone.
func TestStatesAreThoseAReplayOfTheLogGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size, sector, sectors = 32 << 10, 512, 64
		disks := []*Disk{New("a", size, sector), New("b", size, sector).SetZeroes(true)}
		if rapid.Bool().Draw(t, "junk") {
			disks[1].FillJunk(7)
		}
		mustWrite(t, disks[0], 4096, fill(512, 99)) // before the recording
		mustFlush(t, disks[0])
		rec := Record(disks...)
		base := [][]byte{read(t, disks[0], 0, size), read(t, disks[1], 0, size)}
		virgin := [][]byte{make([]byte, size), bytes.Clone(base[1])}
		for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
			d := disks[rapid.IntRange(0, 1).Draw(t, "disk")]
			off := rapid.Int64Range(0, sectors-1).Draw(t, "off")
			n := rapid.Int64Range(1, min(12, sectors-off)).Draw(t, "n")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1, 2:
				mustWrite(t, d, off*sector, fill(int(n*sector), byte(i+1)))
			case 3:
				d.Delete(off*sector, n*sector)
			case 4:
				if err := d.WriteZeroes(off*sector, n*sector); err != nil && d == disks[1] {
					t.Fatal(err)
				}
			case 5:
				mustFlush(t, d)
			}
		}
		log := rec.Log()
		for k := 0; k <= len(log); k++ {
			seed := rapid.Uint64().Draw(t, "crash")
			var chosen [2][]Part
			random := Random(rand.New(rand.NewPCG(seed, 0)))
			states := rec.State(k, func(disk int, ops []Op) []Part {
				for _, op := range ops {
					if op.Disk != disk || op.Pos >= k {
						t.Fatalf("%v of disk %d at %d is pending on %d at %d", op, op.Disk, op.Pos, disk, k)
					}
				}
				chosen[disk] = random(disk, ops)
				return chosen[disk]
			})
			alive := rec.ProcessDeath(k)
			for i := range disks {
				certain, seen, pending := replay(log[:k], i, base[i], virgin[i])
				for _, p := range chosen[i] {
					op := pending[p.Index]
					if p.To == 0 {
						p.To = op.Len
					}
					redo(certain, virgin[i], op, p.From, p.To)
				}
				if got := read(t, states[i], 0, size); !bytes.Equal(got, certain) {
					t.Fatalf("disk %d after a power loss at %d differs", i, k)
				}
				if got := read(t, alive[i], 0, size); !bytes.Equal(got, seen) {
					t.Fatalf("disk %d after a process death at %d differs", i, k)
				}
			}
		}
	})
}

// replay returns what is durable, what is seen, and what is between.
func replay(log []Op, disk int, base, virgin []byte) (certain, seen []byte, pending []Op) {
	certain, seen = bytes.Clone(base), bytes.Clone(base)
	for _, op := range log {
		switch {
		case op.Disk != disk:
		case op.Kind == Flush:
			for len(pending) > 0 && pending[0].Seq < op.Covers {
				redo(certain, virgin, pending[0], 0, pending[0].Len)
				pending = pending[1:]
			}
		default:
			pending = append(pending, op)
			redo(seen, virgin, op, 0, op.Len)
		}
	}
	return certain, seen, pending
}

func redo(b, virgin []byte, op Op, from, to int64) {
	part := b[op.Off+from : op.Off+to]
	switch op.Kind {
	case Write:
		copy(part, op.Data[from:to])
	case Zero:
		clear(part)
	case Delete:
		copy(part, virgin[op.Off+from:])
	}
}

func TestACrashedSectorIsSomeVersionOfIt(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	d := New("d", 1<<20, 512)
	mustWrite(t, d, 0, fill(4096, 1))
	mustFlush(t, d)
	mustWrite(t, d, 0, fill(4096, 2))
	mustWrite(t, d, 2048, fill(2048, 3))
	var seen [4]bool
	for range 500 {
		got := read(t, d.Crash(rng), 0, 4096)
		for s := 0; s < 4096; s += 512 {
			v := got[s]
			if v == 0 || v > 3 || v == 3 && s < 2048 || !bytes.Equal(got[s:s+512], fill(512, v)) {
				t.Fatalf("sector %d holds %d", s/512, v)
			}
			seen[v] = true
		}
	}
	if !slices.Equal(seen[1:], []bool{true, true, true}) {
		t.Fatal("500 crashes left only", seen)
	}
	if got := read(t, d, 0, 4096); got[0] != 2 || got[4095] != 3 {
		t.Fatal("a crash of the copy changed the disk")
	}
}

func TestStateDisksStandOnTheirOwn(t *testing.T) {
	d := New("d", 1<<20, 512).FillJunk(3).SetCached(false)
	rec := Record(d)
	mustWrite(t, d, 0, fill(512, 1))
	s := rec.ProcessDeath(1)[0]
	mustWrite(t, s, 0, fill(512, 2))
	if read(t, d, 0, 512)[0] != 1 || read(t, rec.ProcessDeath(1)[0], 0, 512)[0] != 1 {
		t.Fatal("a write to a state shows elsewhere")
	}
	if !bytes.Equal(read(t, s, 512, 512), read(t, d, 512, 512)) {
		t.Fatal("a state has other junk")
	}
	if s.ReadCached(make([]byte, 512), 0) || rec.Len() != 1 || s.Name() != "d" {
		t.Fatal("a state is another make of disk, or is recorded")
	}
}

func TestMarksStandBetweenTheRequests(t *testing.T) {
	d := New("d", 1<<20, 512)
	rec := Record(d)
	mustWrite(t, d, 0, fill(512, 1))
	if pos := rec.Mark("acknowledged"); pos != 1 {
		t.Fatal("marked at", pos)
	}
	mustFlush(t, d)
	var got []string
	for _, op := range rec.Log() {
		got = append(got, fmt.Sprint(op))
	}
	if want := []string{"write 0+512", "mark acknowledged", "flush"}; !slices.Equal(got, want) {
		t.Fatal(got)
	}
}

func TestConcurrentUseKeepsOneOrder(t *testing.T) {
	disks := []*Disk{New("a", 1<<20, 512), New("b", 1<<20, 512)}
	rec := Record(disks...)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				d := disks[(g+i)%2]
				mustWrite(t, d, int64(g*512), fill(512, byte(i+1)))
				if i%7 == 0 {
					mustFlush(t, d)
				}
				rec.State(rec.Len(), All)
				d.Crash(rand.New(rand.NewPCG(uint64(i), uint64(g))))
			}
		})
	}
	wg.Wait()
	log := rec.Log()
	if len(log) != 4*50+4*8 {
		t.Fatal(len(log), "entries")
	}
	for i, op := range log {
		if op.Pos != i {
			t.Fatalf("entry %d says it is %d", i, op.Pos)
		}
	}
	for i, s := range rec.ProcessDeath(len(log)) {
		if !bytes.Equal(read(t, s, 0, 2048), read(t, disks[i], 0, 2048)) {
			t.Fatal("the end of the log is not what the disk holds")
		}
	}
}

func BenchmarkState(b *testing.B) {
	d := New("d", 1<<40, 4096)
	rec := Record(d)
	for i := range 10000 {
		mustWrite(b, d, int64(i%1000)<<20, fill(4096, byte(i)))
		if i%20 == 0 {
			mustFlush(b, d)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	k := 0
	for b.Loop() {
		rec.State(k%rec.Len(), Random(rng))
		k += 13
	}
}

func TestAFailedFlushMayForgetWhatItShouldHaveCovered(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		d := New("d", 1024, 512).SetForgetful(forgetful)
		rec := Record(d)
		mustWrite(t, d, 0, fill(512, 1))
		d.FailNth(Flush, 1, syscall.EIO)
		if err := d.Flush(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		mustWrite(t, d, 512, fill(512, 2))
		mustFlush(t, d)
		want := byte(1)
		if forgetful {
			want = 0
		}
		for name, left := range map[string]*Disk{
			"State": rec.State(rec.Len(), All)[0], "Crash": d.Crash(rand.New(rand.NewPCG(1, 2))),
		} {
			if b := read(t, left, 0, 1024); b[0] != want || b[512] != 2 {
				t.Errorf("forgetful %v: %s left %d %d", forgetful, name, b[0], b[512])
			}
		}
		if b := read(t, d, 0, 1024); b[0] != 1 || b[512] != 2 {
			t.Errorf("forgetful %v: reads see %d %d", forgetful, b[0], b[512])
		}
	}
}

func TestALyingDiskFlushesNothing(t *testing.T) {
	d := New("d", 1024, 512).SetLying(true)
	rec := Record(d)
	mustWrite(t, d, 0, fill(512, 1))
	mustFlush(t, d)
	if b := read(t, rec.State(rec.Len(), None)[0], 0, 512); b[0] != 0 {
		t.Error("it flushed")
	}
}
