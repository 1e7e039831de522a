package virstor

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// afterPowerLoss is what unit 0 holds, on a forgetful disk, when a flush of the map
// failed, the volume was opened again, and what was then written and flushed is all
// that a loss of power left.
func afterPowerLoss(t *testing.T, cfg Config, keeps bool) uint64 {
	t.Helper()
	a := disktest.New("a", 16*crashChunk, 512).SetForgetful(true).SetKeepsCache(keeps)
	labelled(t, 64, a)
	disks := []*disktest.Disk{a}
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	a.FailFrom(disktest.Flush, 1, syscall.EIO)
	if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
		t.Fatalf("flush: %v", err)
	}
	if v.Close() == nil {
		t.Fatal("closed in order")
	}
	a.Heal()
	v, err = openDisks(cfg, disks)
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 2).done)
	mustDo(t, v.Flush())
	return unitAt(t, []*disktest.Disk{a.Crash(rand.New(rand.NewPCG(1, 1)))}, 0)
}

func TestAMapThatAFailedFlushLeftInACacheIsNotBelieved(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		if got := afterPowerLoss(t, Config{}, keeps); got != 2 {
			t.Errorf("cache kept %v: operation %d, want 2, which was flushed", keeps, got)
		}
	}
	if got := afterPowerLoss(t, Config{breakRule: breakBelieveMap}, true); got == 2 {
		t.Error("a map that is not written again is not noticed")
	}
}

// forgetfulDisk is the only one of a volume whose unit 0 was written by operation 1 and flushed,
// and then by operation 2, which the flush that failed has lost and the cache still has.
func forgetfulDisk(t *testing.T) *disktest.Disk {
	t.Helper()
	a := disktest.New("a", 16*crashChunk, 512).SetForgetful(true)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, v.Flush())
	mustDo(t, <-startWrite(v, 0, 2).done)
	a.FailNth(disktest.Flush, 1, syscall.EIO)
	if v.Flush() == nil {
		t.Fatal("a flush did not fail")
	}
	_ = v.Close()
	return a
}

// dataAfterRestart is what unit 0 reads as when its last write was lost to a flush
// that failed, and the volume opened again.
func dataAfterRestart(t *testing.T, cfg Config) uint64 {
	t.Helper()
	a := forgetfulDisk(t)
	v, err := openDisks(cfg, []*disktest.Disk{a})
	mustDo(t, err)
	b := make([]byte, unit)
	_, err = v.ReadAt(b, 0)
	mustDo(t, err)
	mustDo(t, v.Flush()) // covers what is read
	mustDo(t, v.Close())
	return idOf(b)
}

func TestDataThatAFailedFlushLeftInACacheIsNotBelieved(t *testing.T) {
	if got := dataAfterRestart(t, Config{}); got != 1 {
		t.Errorf("reads as operation %d, which the medium does not hold", got)
	}
	if got := dataAfterRestart(t, Config{breakRule: breakBelieveCache}); got == 1 {
		t.Error("a cache that is not dropped is not noticed")
	}
}

// An entry that was given up, and whose zeros only the cache got, names a chunk that
// another virtual chunk has by then.
func TestAnEntryThatWasGivenUpInACacheAloneDoesNotComeBack(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		a := disktest.New("a", 16*crashChunk, 512).SetForgetful(true).SetKeepsCache(keeps)
		labelled(t, 64, a)
		disks := []*disktest.Disk{a}
		v, err := openDisks(Config{}, disks)
		mustDo(t, err)
		mustDo(t, <-startWrite(v, 0, 1).done)
		mustDo(t, v.Flush())
		mustDo(t, v.Discard(0, crashChunk))
		a.FailNth(disktest.Flush, 1, syscall.EIO)
		_ = v.Flush()
		_ = v.Close()
		v, err = openDisks(Config{}, disks)
		mustDo(t, err)
		mustDo(t, v.Discard(0, crashChunk)) // done, if it is not
		mustDo(t, v.Flush())
		mustDo(t, <-startWrite(v, 40*crashChunk, 2).done)
		mustDo(t, v.Flush())
		after := []*disktest.Disk{a.Crash(rand.New(rand.NewPCG(1, 1)))}
		if got := unitAt(t, after, 0); got != 0 {
			t.Errorf("cache kept %v: what was given up reads as operation %d", keeps, got)
		}
		if got := unitAt(t, after, 40*crashChunk); got != 2 {
			t.Errorf("cache kept %v: operation %d, want 2", keeps, got)
		}
		_ = v.Close()
	}
}

func TestAVolumeThatCannotBeFlushedIsNotOpened(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
	labelled(t, 64, a, b)
	disks := []*disktest.Disk{a, b}
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	remove := b.FailFrom(disktest.Flush, 1, syscall.EIO)
	if _, err := openDisks(Config{}, disks); !errors.Is(err, ErrFlushFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("open: %v", err)
	}
	remove()
	_ = v.Close()
}

// The flushes and the reading of the map run side by side; nothing is written before both
// have succeeded.
func TestNothingIsWrittenToAVolumeThatIsNotOpened(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, zero *disktest.Disk) error{
		"a flush fails": func(_ *testing.T, zero *disktest.Disk) error {
			zero.FailFrom(disktest.Flush, 1, syscall.EIO)
			return ErrFlushFailed
		},
		"the map is damaged": func(t *testing.T, zero *disktest.Disk) error {
			entry := make([]byte, 512)
			ondisk.Entry{Flags: ondisk.FlagAllocated, Component: 9}.Encode(entry, ondisk.LittleEndian)
			_, err := zero.WriteAt(entry, 0)
			mustDo(t, err)
			return ErrDamaged
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
			labelled(t, 64, a, b)
			disks := []*disktest.Disk{a, b}
			v, err := openDisks(Config{}, disks)
			mustDo(t, err)
			mustDo(t, v.Close())
			want := spoil(t, a)
			a.ResetCounts()
			b.ResetCounts()
			if _, err := openDisks(Config{}, disks); !errors.Is(err, want) {
				t.Errorf("open: %v, want %v", err, want)
			}
			if n := a.Count(disktest.Write) + b.Count(disktest.Write); n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

func TestAVolumeThatWasClosedInOrderIsOpenedWithoutMoreAdo(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512)
	labelled(t, 64, a)
	for _, end := range []func(*Volume) error{(*Volume).Close, (*Volume).Stop} {
		v, err := openDisks(Config{}, []*disktest.Disk{a})
		mustDo(t, err)
		mustDo(t, <-startWrite(v, 0, 1).done)
		mustDo(t, end(v))
		a.ResetCounts()
		mapWrites := 0
		remove := a.Inject(func(o disktest.Op) error {
			if o.Kind == disktest.Write && o.Off < 512 {
				mapWrites++
			}
			return nil
		})
		v, err = openDisks(Config{}, []*disktest.Disk{a})
		mustDo(t, err)
		remove()
		if n := a.Count(disktest.DropCache); n != 0 || mapWrites != 0 {
			t.Errorf("the cache is dropped %d times and the map written %d times", n, mapWrites)
		}
		mustDo(t, v.Close())
	}
}

// However the map lies in memory, what is written of it is what is read of it, entry by entry.
func TestTheMapIsEncodedAsItsEntriesAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 3 * chunkmap.PageEntries
		v := new(Volume)
		v.v, v.mapID = v, ondisk.FirstMap
		v.chunks = chunkmap.New(n)
		v.order = rapid.SampledFrom([]ondisk.Order{ondisk.LittleEndian, ondisk.BigEndian, ondisk.OrderUnknown}).Draw(t, "order")
		for first := uint64(0); first < n; first += chunkmap.PageEntries {
			word := chunkmap.WordOf(alloc.Phys{Comp: uint16(first % 7), Chunk: rapid.Uint32Range(0, 1<<31).Draw(t, "chunk")})
			switch rapid.IntRange(0, 3).Draw(t, "page") {
			case 0:
				continue
			case 1:
				v.chunks.SetRun(first, word, chunkmap.PageEntries)
			case 2:
				v.chunks.SetRun(first+3, word, 200)
			case 3: // a run of which one is in use
				v.chunks.SetRun(first, word, chunkmap.PageEntries)
				v.chunks.PinRead(first + 7)
			}
		}
		from := rapid.Uint64Range(0, n-1).Draw(t, "from")
		b := make([]byte, rapid.Uint64Range(1, n-from).Draw(t, "entries")*ondisk.EntrySize)
		v.encodeMap(b, from)
		want := make([]byte, ondisk.EntrySize)
		for i := 0; i < len(b); i += ondisk.EntrySize {
			vc := from + uint64(i/ondisk.EntrySize)
			v.encodeEntry(want, v.chunks.Load(vc))
			if got := b[i:][:ondisk.EntrySize]; !bytes.Equal(got, want) {
				t.Fatalf("entry %d is %x, want %x", vc, got, want)
			}
		}
	})
}

// A map of 2 GiB of which a sector is in use is a matter of a moment.
func TestAHugeMapThatIsAHoleIsNotWritten(t *testing.T) {
	a := disktest.New("a", 8<<30, 512)
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 1 << 50, ChunkSize: 4 << 20, ID: 9,
		Providers: []ondisk.LabelProvider{{Name: "a", Size: a.MediaSize(), SectorSize: 512}}}
	l, err := ondisk.Plan(req)
	mustDo(t, err)
	mustDo(t, Label(t.Context(), []geomlib.Provider{a}, l, LabelOptions{}))
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 1<<49, 1).done)
	mustDo(t, v.Flush())
	var bytes int64
	disk := a.Survivor()
	disk.Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Write {
			bytes += o.Len
		}
		return nil
	})
	again, err := openDisks(Config{}, []*disktest.Disk{disk})
	mustDo(t, err)
	if bytes > 1<<20 {
		t.Errorf("%d bytes are written", bytes)
	}
	mustDo(t, again.Close())
	mustDo(t, v.Close())
}

// handed is a disk whose descriptor another process had before.
type handed struct {
	*disktest.Disk
	failed bool
}

func (h handed) FlushFailed() bool { return h.failed }

// A takeover is no opening: who was not told that a flush failed is told by the next
// process, until the volume was closed.
func TestAFlushThatFailedBeforeATakeoverFailsAfterIt(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)
	labelled(t, 64, a, b)
	open := func(failed bool, cfg Config) (*Volume, []geomlib.Provider) {
		var ms []Member
		var ps []geomlib.Provider
		for _, d := range []*disktest.Disk{a, b} {
			m, err := geomlib.ReadMetadata(d)
			mustDo(t, err)
			p := handed{d, failed && d == b}
			ms, ps = append(ms, Member{p, m}), append(ps, p)
		}
		v, err := Open(Assemble(ms)[0], cfg)
		mustDo(t, err)
		return v, ps
	}
	for _, deferred := range []bool{false, true} {
		v, ps := open(true, Config{DeferWrites: deferred})
		if deferred {
			mustDo(t, v.Activate(ps))
		}
		mustDo(t, <-startWrite(v, 0, 1).done)
		if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
			t.Errorf("deferred %v: flush after a takeover: %v", deferred, err)
		}
		if !v.Status().Components[1].FlushFailed {
			t.Errorf("deferred %v: the status does not tell", deferred)
		}
		if v.Close() == nil {
			t.Errorf("deferred %v: closed in order", deferred)
		}
	}
	v, _ := open(false, Config{})
	mustDo(t, v.Flush())
	mustDo(t, v.Close())
}

// What was read before Activate is written by it: another process may have died
// between its last write and the flush.
func TestATakeoverWritesTheMapAgain(t *testing.T) {
	a := disktest.New("a", 16*crashChunk, 512).SetForgetful(true).SetKeepsCache(true)
	labelled(t, 64, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	a.FailNth(disktest.Flush, 1, syscall.EIO)
	_ = v.Flush()
	_ = v.Close()
	v, err = openDisks(Config{DeferWrites: true}, []*disktest.Disk{a})
	mustDo(t, err)
	mustDo(t, v.Activate([]geomlib.Provider{a}))
	mustDo(t, v.Flush())
	if got := unitAt(t, []*disktest.Disk{a.Crash(rand.New(rand.NewPCG(1, 1)))}, 0); got != 1 {
		t.Errorf("operation %d, want 1, which a flush covers", got)
	}
	mustDo(t, v.Close())
}

// mapped is one of two descriptors of a disk. The cache keeps what is mapped by either.
type mapped struct {
	*disktest.Disk
	here, there *atomic.Bool
}

func (m mapped) DropCache() error {
	m.here.Store(false)
	if m.there.Load() {
		return nil
	}
	return m.Disk.DropCache()
}

// TestATakeoverReadsPastWhatWasLent of the providers that it replaces: what is mapped by them
// may be of a flush that failed.
func TestATakeoverReadsPastWhatWasLent(t *testing.T) {
	a := forgetfulDisk(t)
	var old, now atomic.Bool
	m, err := geomlib.ReadMetadata(a)
	mustDo(t, err)
	v, err := Open(Assemble([]Member{{mapped{a, &old, &now}, m}})[0], Config{DeferWrites: true})
	mustDo(t, err)
	old.Store(true)
	mustDo(t, v.Activate([]geomlib.Provider{mapped{a, &now, &old}}))
	if old.Load() {
		t.Error("what was lent before is mapped still")
	}
	b := make([]byte, unit)
	_, err = v.ReadAt(b, 0)
	mustDo(t, err)
	if got := idOf(b); got != 1 {
		t.Errorf("reads see operation %d, and the medium has 1", got)
	}
	mustDo(t, v.Close())
}

func TestACacheThatCannotBeDroppedIsToldOnce(t *testing.T) {
	a, b := disktest.New("a", 16*crashChunk, 512).SetKeepsCache(true), disktest.New("b", 16*crashChunk, 512).SetKeepsCache(true)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{}, []*disktest.Disk{a, b})
	mustDo(t, err)
	var log bytes.Buffer
	again, err := openDisks(Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, []*disktest.Disk{a.Survivor(), b.Survivor()})
	mustDo(t, err)
	mustDo(t, again.Close())
	mustDo(t, v.Close())
	if n := strings.Count(log.String(), "cannot be dropped"); n != 1 || !strings.Contains(log.String(), "a, b") {
		t.Errorf("told %d times:\n%s", n, &log)
	}
}
