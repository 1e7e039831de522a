package disktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
)

// failer is a testing.T, testing.B or rapid.T.
type failer interface {
	Helper()
	Fatal(...any)
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func mustWrite(t failer, d *Disk, off int64, p []byte) {
	t.Helper()
	if n, err := d.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
}

func mustFlush(t failer, d *Disk) {
	t.Helper()
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
}

func read(t failer, d *Disk, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if _, err := d.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDiskIsWhatAPlainArrayWouldBe compares a disk, its clones and what it
// says of holes with an array of bytes.
func TestDiskIsWhatAPlainArrayWouldBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 64 << 10
		sector := rapid.SampledFrom([]int{8, 512, 4096, 8192}).Draw(t, "sector")
		d := New("d", size, sector).SetZeroes(true)
		model := make([]byte, size)
		if rapid.Bool().Draw(t, "junk") {
			d.FillJunk(rapid.Uint64().Draw(t, "seed"))
			copy(model, read(t, d, 0, size))
			if bytes.IndexByte(model, 0) >= 0 {
				t.Fatal("a byte of junk is zero")
			}
		}
		virgin := bytes.Clone(model)
		clone, cloned := d.Clone(), bytes.Clone(model)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			most := size / sector
			from := rapid.IntRange(0, most-1).Draw(t, "from") * sector
			n := rapid.IntRange(1, most-from/sector).Draw(t, "sectors") * sector
			part := model[from : from+n]
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				copy(part, fill(n, rapid.Byte().Draw(t, "byte")))
				mustWrite(t, d, int64(from), part)
			case 2:
				copy(part, virgin[from:])
				if err := d.Delete(int64(from), int64(n)); err != nil {
					t.Fatal(err)
				}
			case 3:
				clear(part)
				if err := d.WriteZeroes(int64(from), int64(n)); err != nil {
					t.Fatal(err)
				}
			case 4:
				if got := read(t, clone, 0, size); !bytes.Equal(got, cloned) {
					t.Fatal("a write showed in the clone")
				}
				clone, cloned = d.Clone(), bytes.Clone(model)
			}
			if got := read(t, d, 0, size); !bytes.Equal(got, model) {
				t.Fatal("read back something else")
			}
			checkHoles(t, d, model, int64(from), int64(from+n))
		}
	})
}

func checkHoles(t *rapid.T, d *Disk, model []byte, off, limit int64) {
	for off < limit {
		start, end, err := d.NextData(off, limit)
		if err != nil || start < off || end > limit || start < limit && end <= start {
			t.Fatalf("NextData(%d, %d) = %d, %d, %v", off, limit, start, end, err)
		}
		if !bytes.Equal(model[off:start], make([]byte, start-off)) {
			t.Fatalf("a hole in [%d, %d) holds data", off, start)
		}
		if start == limit {
			return
		}
		off = end
	}
}

func TestAHugeDiskCostsOnlyWhatIsWritten(t *testing.T) {
	const size = 1<<63 - 4096
	d := New("huge", size, 4096)
	for _, off := range []int64{0, 1 << 50, size - 4096} {
		mustWrite(t, d, off, fill(4096, 7))
	}
	start, end, err := d.NextData(4096, size)
	if err != nil || start != 1<<50 || end != 1<<50+4096 {
		t.Fatal(start, end, err)
	}
	if err := d.Delete(4096, size-8192); err != nil {
		t.Fatal(err)
	}
	if start, _, _ := d.NextData(4096, size); start != size-4096 {
		t.Fatal("first data is at", start)
	}
	if !bytes.Equal(read(t, d, 1<<50, 4096), make([]byte, 4096)) {
		t.Fatal("deleted data is still there")
	}
}

func TestMisuseOfTheDiskPanics(t *testing.T) {
	d := New("d", 1<<20, 4096)
	for what, do := range map[string]func(){
		"unaligned offset":  func() { d.ReadAt(make([]byte, 4096), 512) },
		"unaligned length":  func() { d.WriteAt(make([]byte, 512), 0) },
		"negative":          func() { d.Delete(-4096, 4096) },
		"beyond the end":    func() { d.WriteAt(make([]byte, 8192), 1<<20-4096) },
		"cached beyond":     func() { d.ReadCached(make([]byte, 4096), 1<<20) },
		"reversed NextData": func() { d.NextData(8192, 4096) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			do()
		}()
	}
}

func TestCachedReadsCanBeSwitchedOff(t *testing.T) {
	d := New("d", 1<<20, 512)
	mustWrite(t, d, 512, fill(512, 1))
	p := make([]byte, 512)
	if !d.ReadCached(p, 512) || p[0] != 1 {
		t.Fatal("cached read failed")
	}
	d.Gone()
	if d.ReadCached(p, 512) {
		t.Fatal("cached read of a disk that is gone")
	}
	d.Back()
	if d.SetCached(false).ReadCached(p, 512) {
		t.Fatal("cached read though switched off")
	}
	if d.Count(CachedRead) != 3 || d.Count(Read) != 0 {
		t.Fatal("counted", d.Count(CachedRead), d.Count(Read))
	}
}

func TestPlainHidesWhatIsOptional(t *testing.T) {
	p := New("d", 1<<20, 512).Plain()
	_, holes := p.(geomlib.HoleFinder)
	_, cached := p.(geomlib.CachedReader)
	_, buffered := p.(geomlib.BufferedWriter)
	_, zeroes := p.(geomlib.Zeroer)
	if holes || cached || buffered || zeroes {
		t.Fatal(holes, cached, buffered, zeroes)
	}
}

func TestInjectedFaults(t *testing.T) {
	d := New("ada4", 1<<20, 512)
	p := fill(2048, 1)
	write := func() error { _, err := d.WriteAt(p, 0); return err }

	d.FailNth(Write, 2, syscall.EIO)
	for i, want := range []error{nil, syscall.EIO, nil} {
		if err := write(); !errors.Is(err, want) {
			t.Errorf("write %d with the second failing: %v", i+1, err)
		}
	}
	heal := d.FailFrom(Write, 2, syscall.ENOSPC)
	for i, want := range []error{nil, syscall.ENOSPC, syscall.ENOSPC} {
		if err := write(); !errors.Is(err, want) {
			t.Errorf("write %d with all from the second failing: %v", i+1, err)
		}
	}
	heal()
	if err := write(); err != nil {
		t.Error("after the fault was removed:", err)
	}
	d.FailRange(Read, 512, 512, syscall.EIO)
	for _, c := range []struct {
		off  int64
		n    int
		want error
	}{{0, 512, nil}, {1024, 512, nil}, {0, 1024, syscall.EIO}, {512, 512, syscall.EIO}} {
		if _, err := d.ReadAt(p[:c.n], c.off); !errors.Is(err, c.want) {
			t.Errorf("read %d at %d beside a bad sector: %v", c.n, c.off, err)
		}
	}
	d.Heal()
	d.Gone()
	if err := write(); !errors.Is(err, syscall.ENXIO) {
		t.Error("write to a disk that is gone:", err)
	}
	if err := d.Flush(); !errors.Is(err, syscall.ENXIO) {
		t.Error("flush of a disk that is gone:", err)
	}
	d.Back()
	if err := write(); err != nil {
		t.Error("write to a disk that is back:", err)
	}
	if d.Count(Write) != 9 {
		t.Error(d.Count(Write), "writes counted, of 9")
	}
}

func TestAFaultMayComeAfterTheDeed(t *testing.T) {
	d := New("d", 1<<20, 512)
	d.FailNth(Write, 1, Partial{Done: 1000, Err: syscall.EIO})
	d.FailNth(Write, 2, Completed(syscall.EIO))
	d.FailNth(Flush, 1, Completed(syscall.EIO))
	if n, err := d.WriteAt(fill(2048, 1), 0); n != 512 || !errors.Is(err, syscall.EIO) {
		t.Fatal("short write:", n, err)
	}
	if got := read(t, d, 0, 1024); got[511] != 1 || got[512] != 0 {
		t.Fatal("a short write is done in whole sectors")
	}
	if n, err := d.WriteAt(fill(2048, 2), 0); n != 2048 || !errors.Is(err, syscall.EIO) {
		t.Fatal("completed write:", n, err)
	}
	if err := d.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if got := read(t, d.Crash(rand.New(rand.NewPCG(1, 1))), 0, 2048); !bytes.Equal(got, fill(2048, 2)) {
		t.Fatal("what a flush completed was lost")
	}
}

func TestARequestCanBeHeldInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New("d", 1<<20, 512)
		reached, release := d.Block(Write)
		_, never := d.Block(Delete)
		done := make(chan error, 1)
		go func() { _, err := d.WriteAt(fill(512, 1), 0); done <- err }()
		<-reached
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("the write was not held")
		}
		if read(t, d, 0, 512)[0] != 0 {
			t.Fatal("a held write shows")
		}
		mustWrite(t, d, 512, fill(512, 2)) // only one is held
		release()
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if read(t, d, 0, 512)[0] != 1 {
			t.Fatal("a released write was not done")
		}
		never()
		if err := d.Delete(0, 512); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFlushTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New("d", 1<<20, 512).SetFlushDelay(time.Second)
		begin := time.Now()
		mustFlush(t, d)
		if took := time.Since(begin); took != time.Second {
			t.Fatal("took", took)
		}
	})
}

func TestReadsAllocateNothing(t *testing.T) {
	d := New("d", 1<<20, 512)
	mustWrite(t, d, 0, fill(8192, 1))
	p := make([]byte, 16384)
	if n := testing.AllocsPerRun(50, func() { d.ReadAt(p, 0); d.ReadCached(p, 512) }); n != 0 {
		t.Fatal(n, "allocations")
	}
}
