package virstor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// tracedDisk is a disk that tells the order of what is done to it.
type tracedDisk struct {
	*disktest.Disk
	log  *[]string
	fail string // the operation that fails
}

var errTraced = errors.New("failed on purpose")

func (d *tracedDisk) note(format string, args ...any) error {
	s := d.Name() + " " + fmt.Sprintf(format, args...)
	*d.log = append(*d.log, s)
	if s == d.fail {
		return errTraced
	}
	return nil
}

func (d *tracedDisk) WriteAt(p []byte, off int64) (int, error) {
	what := "write"
	if off == d.MediaSize()-int64(d.SectorSize()) {
		what = "clear"
		if bytes.HasPrefix(p, []byte(ondisk.Magic)) {
			what = "store"
		}
	}
	if err := d.note("%s", what); err != nil {
		return 0, err
	}
	return d.Disk.WriteAt(p, off)
}

func (d *tracedDisk) Flush() error { return d.note("flush") }

func layoutFor(t testing.TB, virtual, chunk int64, ps ...geomlib.Provider) *ondisk.Layout {
	t.Helper()
	r := ondisk.LabelRequest{Name: "new", VirtualSize: virtual, ChunkSize: chunk, ID: 5}
	for _, p := range ps {
		r.Providers = append(r.Providers, ondisk.LabelProvider{Name: p.Name(), Size: p.MediaSize(), SectorSize: p.SectorSize()})
	}
	l, err := ondisk.Plan(r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tracedPair() (a, b *tracedDisk, log *[]string) {
	log = new([]string)
	a = &tracedDisk{Disk: newMem("a", 8<<20, 512), log: log}
	b = &tracedDisk{Disk: newMem("b", 8<<20, 512), log: log}
	return a, b, log
}

func TestLabelClearsThenMapsThenStores(t *testing.T) {
	a, b, log := tracedPair()
	before := allOf(t, a.Disk)
	l := layoutFor(t, 64<<20, 1<<20, a, b)
	var steps []string
	err := Label(t.Context(), []geomlib.Provider{a, b}, l, LabelOptions{Progress: func(s LabelStep, i int) {
		steps = append(steps, fmt.Sprint(s, i))
	}})
	if err != nil {
		t.Fatal(err)
	}
	// The map and the extension block are one write each.
	want := []string{"a clear", "a flush", "b clear", "b flush", "a write", "a write", "a flush", "a store", "a flush", "b store", "b flush"}
	if !slices.Equal(*log, want) {
		t.Errorf("order %q\nwant  %q", *log, want)
	}
	if want := []string{"1 0", "1 1", "2 0", "3 0", "3 1"}; !slices.Equal(steps, want) {
		t.Errorf("progress %q, want %q", steps, want)
	}
	for i, d := range []*tracedDisk{a, b} {
		if m, err := geomlib.ReadMetadata(d); err != nil || m != l.Metadata[i] {
			t.Errorf("%s: %+v, %v", d.Name(), m, err)
		}
	}
	now := allOf(t, a.Disk)
	if n := bytes.IndexFunc(now[:l.MapBytes], func(r rune) bool { return r != 0 }); n >= 0 {
		t.Errorf("map not zero at %d", n)
	}
	off, ok := ondisk.ExtensionOffset(l.Metadata[0])
	if !ok || !bytes.Equal(now[off:off+ondisk.ExtensionSize], make([]byte, ondisk.ExtensionSize)) {
		t.Error("extension block is not zero")
	}
	if beyond := off + ondisk.ExtensionSize; now[off-1] != before[off-1] || now[beyond] != before[beyond] {
		t.Error("label wrote beyond the extension block")
	}
	open(t, Config{}, a.Disk, b.Disk).Close()
}

func TestLabelLeavesNoVolumeWhenItFails(t *testing.T) {
	for _, fail := range []string{"a clear", "b clear", "a write", "a flush", "a store", "b store", "b flush"} {
		a, b, _ := tracedPair()
		a.fail, b.fail = fail, fail
		old := layoutFor(t, 64<<20, 1<<20, a.Disk, b.Disk)
		if err := Label(t.Context(), []geomlib.Provider{a.Disk, b.Disk}, old, LabelOptions{}); err != nil {
			t.Fatal(err)
		}
		l := layoutFor(t, 128<<20, 1<<20, a, b)
		err := Label(t.Context(), []geomlib.Provider{a, b}, l, LabelOptions{})
		if !errors.Is(err, errTraced) {
			t.Errorf("%s: %v", fail, err)
		}
		var left []string
		for _, d := range []*disktest.Disk{a.Disk, b.Disk} {
			if m, err := geomlib.ReadMetadata(d); err == nil {
				left = append(left, fmt.Sprint(d.Name(), m.VirtualSize>>20))
			}
		}
		// The old volume before anything was done to it; after that at most a
		// volume that misses a component, unless only the last flush failed.
		got := strings.Join(left, " ")
		if got == "a64 b64" != (fail == "a clear") || got == "a128 b128" && fail != "b flush" {
			t.Errorf("%s leaves %q", fail, got)
		}
	}
}

func TestLabelRefusesProvidersOfAnotherLayout(t *testing.T) {
	a, b := newMem("a", 8<<20, 512), newMem("b", 8<<20, 512)
	other := newMem("other", 9<<20, 512)
	wide := newMem("wide", 8<<20, 4096)
	l := layoutFor(t, 64<<20, 1<<20, a, b)
	for _, c := range []struct {
		ps   []geomlib.Provider
		want error
	}{
		{nil, ondisk.ErrProviders},
		{[]geomlib.Provider{a}, ondisk.ErrProviders},
		{[]geomlib.Provider{a, other}, ondisk.ErrProviderSize},
		{[]geomlib.Provider{a, wide}, ErrSectorSize},
	} {
		before := allOf(t, a)
		if err := Label(t.Context(), c.ps, l, LabelOptions{}); !errors.Is(err, c.want) {
			t.Errorf("%d providers: %v, want %v", len(c.ps), err, c.want)
		}
		if !bytes.Equal(before, allOf(t, a)) {
			t.Error("a refused label wrote something")
		}
	}
}

func TestLabelStopsWithItsContext(t *testing.T) {
	a, b, log := tracedPair()
	l := layoutFor(t, 64<<20, 1<<20, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	err := Label(ctx, []geomlib.Provider{a, b}, l, LabelOptions{Progress: func(s LabelStep, _ int) {
		if s == LabelMap {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if slices.Contains(*log, "a write") || slices.Contains(*log, "a store") {
		t.Errorf("went on: %q", *log)
	}
}

// sparseDisk is a petabyte that holds what was written and nothing else.
type sparseDisk struct {
	size    int64
	sectors map[int64][]byte
	zeroed  int64
}

func (d *sparseDisk) Name() string     { return "sparse" }
func (d *sparseDisk) MediaSize() int64 { return d.size }
func (d *sparseDisk) SectorSize() int  { return 512 }
func (d *sparseDisk) ReadAt(p []byte, off int64) (int, error) {
	return copy(p, d.sectors[off]), nil
}
func (d *sparseDisk) WriteAt(p []byte, off int64) (int, error) {
	d.sectors[off] = bytes.Clone(p)
	return len(p), nil
}
func (d *sparseDisk) Flush() error              { return nil }
func (d *sparseDisk) Delete(int64, int64) error { return geomlib.ErrNotSupported }
func (d *sparseDisk) Close() error              { return nil }
func (d *sparseDisk) WriteZeroes(_, n int64) error {
	d.zeroed += n
	return nil
}
func (d *sparseDisk) NextData(off, limit int64) (int64, int64, error) {
	if off < 4096 { // data in the middle of the map's first sectors
		return 1024, 4096, nil
	}
	return limit, limit, nil
}

func TestLabelLeavesHolesOfTheMapAlone(t *testing.T) {
	d := &sparseDisk{size: 1 << 50, sectors: make(map[int64][]byte)}
	if err := Label(t.Context(), []geomlib.Provider{d}, layoutFor(t, 1<<50, 4<<20, d), LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	if d.zeroed != 3072 {
		t.Errorf("%d bytes of a sparse map were zeroed, want 3072", d.zeroed)
	}
	if len(d.sectors) != 1 {
		t.Errorf("%d writes, want the metadata alone", len(d.sectors))
	}
}

func TestLabelOfAPebibyteOnSparseFilesTakesUnderTwoSeconds(t *testing.T) {
	dir := t.TempDir()
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() { // tmpfs has trusted holes
		if dir, err = os.MkdirTemp("/dev/shm", "gvirstor"); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
	}
	var ps []geomlib.Provider
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 8<<40); err != nil {
			t.Fatal(err)
		}
		p, err := geomlib.Open(path, geomlib.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ps = append(ps, p)
	}
	if _, ok := ps[0].(geomlib.HoleFinder); !ok {
		t.Logf("holes of the file system under %s are not trusted: the map is written in full", dir)
		return
	}
	start := time.Now()
	if err := Label(t.Context(), ps, layoutFor(t, 1<<50, 4<<20, ps...), LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

// However far labelling with small chunks has come, the kernel class takes nothing of it.
func TestALabelWithSmallChunksIsFencedAtEveryMoment(t *testing.T) {
	disks := []*disktest.Disk{newMem("a", 8<<20, 512), newMem("b", 8<<20, 512)}
	r := ondisk.LabelRequest{Name: "new", VirtualSize: 64 << 20, ChunkSize: ondisk.SmallChunkMultiple, ID: 5, SmallChunks: true}
	var ps []geomlib.Provider
	for _, d := range disks {
		r.Providers = append(r.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: 512})
		ps = append(ps, d)
	}
	l, err := ondisk.Plan(r)
	mustDo(t, err)
	rec := disktest.Record(disks...)
	mustDo(t, Label(t.Context(), ps, l, LabelOptions{}))
	for k := range rec.Len() + 1 {
		var at []geomlib.Provider
		for _, d := range rec.State(k, disktest.All) {
			at = append(at, d)
		}
		if verdict, err := kernelTakes(at); verdict != kernelRefuses || err != nil {
			t.Errorf("at %d: %v, %v", k, verdict, err)
		}
	}
}
