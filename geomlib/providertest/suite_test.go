package providertest

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

func TestAFileDoesWhatProvidersDo(t *testing.T) {
	for name, o := range map[string]geomlib.OpenOptions{"cached": {}, "past the cache": {Direct: true}} {
		t.Run(name, func(t *testing.T) { fileIsAProvider(t, o) })
	}
}

// TestAFileDoesWithRingsWhatProvidersDo, by transfers, and what rings refuse as always.
func TestAFileDoesWithRingsWhatProvidersDo(t *testing.T) {
	rings, err := geomlib.NewRings(nil)
	if errors.Is(err, geomlib.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var begun atomic.Int64
	Run(t, func(t *testing.T) geomlib.Provider {
		p, err := geomlib.Open(newFile(t), geomlib.OpenOptions{Direct: true, Rings: rings})
		if errors.Is(err, geomlib.ErrNotSupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return byTransfers{p, p.(geomlib.Starter), &begun}
	})
	if err := rings.Close(); err != nil {
		t.Error(err)
	}
	if begun.Load() == 0 && !t.Skipped() {
		t.Error("no ring did anything")
	}
}

// byTransfers reads and writes by transfers, of memory that a device can use.
type byTransfers struct {
	geomlib.Provider
	geomlib.Starter
	begun *atomic.Int64
}

func (p byTransfers) ReadAt(b []byte, off int64) (int, error) {
	own := own(len(b))
	n, err := p.do(p.StartRead, p.Provider.ReadAt, own, off)
	copy(b, own)
	return n, err
}

func (p byTransfers) WriteAt(b []byte, off int64) (int, error) {
	own := own(len(b))
	copy(own, b)
	return p.do(p.StartWrite, p.Provider.WriteAt, own, off)
}

// own is memory of n bytes from the beginning of a page on.
func own(n int) []byte {
	b := make([]byte, n+4096)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[skip:][:n]
}

// do begins a transfer, or does it the other way.
func (p byTransfers) do(begin func(*geomlib.Transfer) bool, other func([]byte, int64) (int, error), b []byte, off int64) (int, error) {
	end := make(ended)
	t := &geomlib.Transfer{Data: b, Offset: off, End: end}
	if !begin(t) {
		return other(b, off)
	}
	p.begun.Add(1)
	p.Push()
	<-end
	if t.Err != nil {
		return 0, t.Err
	}
	return len(b), nil
}

type ended chan struct{}

func (e ended) Ended(*geomlib.Transfer) { close(e) }

// newFile is a file of 1 MiB.
func newFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fileIsAProvider(t *testing.T, o geomlib.OpenOptions) {
	Run(t, func(t *testing.T) geomlib.Provider {
		p, err := geomlib.Open(newFile(t), o)
		if o.Direct && errors.Is(err, geomlib.ErrNotSupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	})
}

func TestASharedFileDoesWhatProvidersDo(t *testing.T) {
	Run(t, func(t *testing.T) geomlib.Provider {
		p, err := geomlib.Shared{}.Open(newFile(t), geomlib.OpenOptions{SectorSize: 4096})
		if errors.Is(err, geomlib.ErrNotShared) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	})
}

func TestADiskInMemoryDoesWhatProvidersDo(t *testing.T) {
	for name, set := range map[string]func(*disktest.Disk) geomlib.Provider{
		"new":      func(d *disktest.Disk) geomlib.Provider { return d },
		"zeroing":  func(d *disktest.Disk) geomlib.Provider { return d.SetZeroes(true) },
		"sharing":  func(d *disktest.Disk) geomlib.Provider { return d.SetShares(true) },
		"junk":     func(d *disktest.Disk) geomlib.Provider { return d.FillJunk(1).SetZeroes(true) },
		"no cache": func(d *disktest.Disk) geomlib.Provider { return d.SetNoVolatileCache(true) },
		"plain":    func(d *disktest.Disk) geomlib.Provider { return d.SetDeletes(false).Plain() },
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(*testing.T) geomlib.Provider { return set(disktest.New("a", 1<<20, 4096)) })
		})
	}
}
