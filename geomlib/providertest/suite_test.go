package providertest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

func TestAFileDoesWhatProvidersDo(t *testing.T) {
	for name, o := range map[string]geomlib.OpenOptions{"cached": {}, "past the cache": {Direct: true}} {
		t.Run(name, func(t *testing.T) { fileIsAProvider(t, o) })
	}
}

func fileIsAProvider(t *testing.T, o geomlib.OpenOptions) {
	Run(t, func(t *testing.T) geomlib.Provider {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := geomlib.Open(path, o)
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
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := geomlib.Shared{}.Open(path, geomlib.OpenOptions{SectorSize: 4096})
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
