package repair_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// flat is a disk that keeps its first bytes in mem, and nothing of what was there before.
type flat struct {
	*disktest.Disk
	mem []byte
	// live, when not nil, is told what memory is in use.
	live func(bytes uint64)
}

func (f *flat) ReadAt(b []byte, off int64) (int, error) { return copy(b, f.mem[off:]), nil }

func (f *flat) WriteAt(b []byte, off int64) (int, error) {
	if f.live != nil {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		f.live(m.HeapAlloc)
	}
	return copy(f.mem[off:], b), nil
}

func (f *flat) Flush() error { return nil }

// TestUndoOfALongJournalTakesLittleMemory: of 128 MiB here, in records of all sizes.
func TestUndoOfALongJournalTakesLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 128 MiB")
	}
	disks, _ := voltest.New(t, false)
	voltest.Spoil(t, disks[1], func(m *ondisk.Metadata) { m.Count = 2 })
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "undo")
	j, err := repair.CreateJournal(path, planOf(t, r, repair.Choices{}), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d := &flat{Disk: disks[0], mem: make([]byte, disks[0].MediaSize())}
	g := j.Guard(d)
	const piece, rounds = 1 << 20, 64
	for i := range rounds {
		b := bytes.Repeat([]byte{byte(i + 1)}, piece)
		if i%2 == 0 {
			b = b[:piece-512*i]
		}
		if _, err := g.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var most uint64
	d.live = func(n uint64) { most = max(most, n) }
	res, err := repair.Undo(ctx, f, []geomlib.Provider{d, disks[1]}, repair.UndoOptions{})
	if err != nil || res.Writes < rounds {
		t.Fatalf("%+v, %v", res, err)
	}
	if !bytes.Equal(d.mem[:piece], make([]byte, piece)) {
		t.Error("not what was there before")
	}
	grown := (int64(most) - int64(before.HeapAlloc)) >> 20
	t.Logf("a journal of %d MiB, %d MiB of memory", fi.Size()>>20, grown)
	if grown > 16 {
		t.Errorf("%d MiB of memory, want at most 16", grown)
	}
}
