package virstor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// slowDisk takes its time for writes, as a disk does that has no hole to offer.
// Zeros may take longer: what was asked first is not what is done first.
type slowDisk struct {
	geomlib.Provider
	perByte, perZero time.Duration
}

func (d slowDisk) WriteAt(b []byte, off int64) (int, error) {
	each := d.perByte
	if isZero(b) {
		each = d.perZero
	}
	time.Sleep(each * time.Duration(len(b)))
	return d.Provider.WriteAt(b, off)
}

// What a byte takes on the disk of openSlow.
const perByte, perZero = 10 * time.Nanosecond, 50 * time.Nanosecond

// openSlow opens a volume of 64 chunks on a disk of 16 that is full of junk.
func openSlow(t testing.TB, cfg Config) (*Volume, *disktest.Disk) {
	d := newMem("slow", 16*crashChunk+512, 512)
	label(t, 64*crashChunk, crashChunk, d)
	m, err := geomlib.ReadMetadata(d)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(Assemble([]Member{{slowDisk{d.Plain(), perByte, perZero}, m}})[0], cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v, d
}

// zeroedChunks are the chunks of d that hold nothing but zeros.
func zeroedChunks(t testing.TB, d *disktest.Disk) (list []int64) {
	b := allOf(t, d)
	for c := int64(2); c < 16; c++ {
		if isZero(b[c*crashChunk:][:crashChunk]) {
			list = append(list, c)
		}
	}
	return list
}

func TestTheNextChunksAreZeroedWhileAVolumeIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, d := openSlow(t, Config{ZeroAhead: 3})
		defer v.Close()
		time.Sleep(time.Minute)
		if got := zeroedChunks(t, d); got != nil {
			t.Fatalf("nothing was allocated yet, and chunks %v are zeroed", got)
		}
		data := make([]byte, 4096)
		fill(data, 7)
		write := func(vc int64) time.Duration {
			begin := time.Now()
			if _, err := v.WriteAt(data, vc*crashChunk+8192); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		slow := write(0)
		time.Sleep(time.Minute)
		if got := zeroedChunks(t, d); len(got) != 3 || got[0] != 3 || got[2] != 5 {
			t.Fatalf("chunks %v are zeroed, not 3, 4 and 5", got)
		}
		if quick := write(1); quick > slow/10 {
			t.Fatalf("a first write took %v where zeros had to be written, %v where they were", slow, quick)
		}
		b := make([]byte, crashChunk)
		if _, err := v.ReadAt(b, crashChunk); err != nil {
			t.Fatal(err)
		}
		if !isZero(b[:8192]) || string(b[8192:][:4096]) != string(data) || !isZero(b[8192+4096:]) {
			t.Fatal("the new chunk holds something else than the data and zeros")
		}
		time.Sleep(time.Minute)
		if got := zeroedChunks(t, d); len(got) != 3 || got[0] != 4 || got[2] != 6 {
			t.Fatalf("chunks %v are zeroed, not 4, 5 and 6", got)
		}
	})
}

func TestAWriteIsNotKeptWaitingForZerosAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := openSlow(t, Config{ZeroAhead: 3})
		defer v.Close()
		if err := v.WriteZeroes(0, crashChunk, NoHole); err != nil {
			t.Fatal(err)
		}
		const zeroing = perZero * min(aheadPiece, crashChunk)
		time.Sleep(aheadIdle + zeroing/2)
		synctest.Wait()
		b := make([]byte, crashChunk)
		fill(b[:512], 9)
		begin := time.Now()
		if _, err := v.WriteAt(b, crashChunk); err != nil {
			t.Fatal(err)
		}
		const most = zeroing + perByte*(crashChunk+4096)
		if took := time.Since(begin); took > most {
			t.Errorf("took %v, not what a piece of zeros and the chunk take: %v", took, most)
		}
		time.Sleep(time.Second)
		got := make([]byte, crashChunk)
		if _, err := v.ReadAt(got, crashChunk); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(b) {
			t.Error("zeros overtook the data")
		}
	})
}

func TestAChunkThatWasUsedIsNotTakenForZeroed(t *testing.T) {
	d := disktest.New("a", 8*crashChunk, 512).FillJunk(3)
	labelled(t, 64, d)
	v, err := openDisks(Config{ZeroAhead: 2, Discard: DiscardOn}, []*disktest.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	junk := make([]byte, crashChunk)
	for i := range junk {
		junk[i] = 0xee
	}
	must := func(_ int, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(v.WriteAt(junk, 0))
	for newZeroAhead(v).one() {
	}
	must(v.WriteAt(junk, crashChunk)) // on a chunk that was zeroed ahead
	must(0, v.Discard(crashChunk, crashChunk))
	must(0, v.Flush())
	v.freed.wait()
	must(v.WriteAt(junk[:512], 2*crashChunk)) // on the same one
	b := make([]byte, crashChunk)
	must(v.ReadAt(b, 2*crashChunk))
	if !isZero(b[512:]) {
		t.Error("what an earlier owner wrote is seen")
	}
}

// BenchmarkFirstWrite writes 4 KiB to a chunk of 4 MiB for the first time, on a disk that
// writes 200 MB/s, with nothing else to do in between.
func BenchmarkFirstWrite(b *testing.B) {
	for _, ahead := range []int{0, 8} {
		name := "zeroed when written"
		if ahead > 0 {
			name = "zeroed ahead"
		}
		b.Run(name, func(b *testing.B) {
			const chunk, chunks = 4 << 20, 24
			d := newMem("slow", chunks*chunk, 512)
			label(b, 64*chunk, chunk, d)
			m, err := geomlib.ReadMetadata(d)
			if err != nil {
				b.Fatal(err)
			}
			v, err := Open(Assemble([]Member{{slowDisk{d.Plain(), 5 * time.Nanosecond, 5 * time.Nanosecond}, m}})[0], Config{ZeroAhead: ahead})
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			data := make([]byte, 4096)
			if _, err := v.WriteAt(data, 0); err != nil { // from now on it may zero ahead
				b.Fatal(err)
			}
			for i := int64(0); b.Loop(); i++ {
				b.StopTimer()
				vc := 1 + i%8
				if err := v.Discard(vc*chunk, chunk); err != nil {
					b.Fatal(err)
				}
				if err := v.Flush(); err != nil {
					b.Fatal(err)
				}
				v.freed.wait()
				for ahead > 0 && v.ahead.one() {
				}
				b.StartTimer()
				if _, err := v.WriteAt(data, vc*chunk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
