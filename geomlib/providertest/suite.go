// Package providertest is what every provider must do: a suite that each
// implementation of geomlib.Provider runs.
package providertest

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// Run tries the provider that open makes, anew for each of its tests. It has at least
// 64 sectors, and is open for writing.
func Run(t *testing.T, open func(t *testing.T) geomlib.Provider) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p geomlib.Provider)
	}{
		{"it is of whole sectors", wholeSectors},
		{"what is written is read", writtenIsRead},
		{"what is no range of it is refused", refused},
		{"zeros read as zeros", zeroed},
		{"what shares blocks is apart once either is written", shared},
		{"what is deleted leaves the rest alone", deleted},
		{"many may use it at once", crowd},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func wholeSectors(t *testing.T, p geomlib.Provider) {
	sector := int64(p.SectorSize())
	if p.Name() == "" || sector <= 0 || sector&(sector-1) != 0 || p.MediaSize() < 64*sector || p.MediaSize()%sector != 0 {
		t.Errorf("%q of %d bytes in sectors of %d", p.Name(), p.MediaSize(), sector)
	}
}

// write fills n sectors from the first on with b.
func write(t *testing.T, p geomlib.Provider, first, n int, b byte) {
	t.Helper()
	data := bytes.Repeat([]byte{b}, n*p.SectorSize())
	if done, err := p.WriteAt(data, int64(first*p.SectorSize())); err != nil || done != len(data) {
		t.Fatalf("%d of %d bytes written: %v", done, len(data), err)
	}
}

// holds tells when n sectors from the first on hold anything but b.
func holds(t *testing.T, p geomlib.Provider, first, n int, b byte) {
	t.Helper()
	data := make([]byte, n*p.SectorSize())
	if done, err := p.ReadAt(data, int64(first*p.SectorSize())); err != nil || done != len(data) {
		t.Fatalf("%d of %d bytes read: %v", done, len(data), err)
	}
	if !bytes.Equal(data, bytes.Repeat([]byte{b}, len(data))) {
		t.Errorf("sectors %d to %d are not full of %d", first, first+n, b)
	}
}

func flush(t *testing.T, p geomlib.Provider) {
	t.Helper()
	if err := p.Flush(); err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		t.Fatal(err)
	}
}

func writtenIsRead(t *testing.T, p geomlib.Provider) {
	last := int(p.MediaSize())/p.SectorSize() - 1
	write(t, p, 3, 4, 1)
	write(t, p, 4, 1, 2)
	write(t, p, last, 1, 3)
	flush(t, p)
	holds(t, p, 3, 1, 1)
	holds(t, p, 4, 1, 2)
	holds(t, p, 5, 2, 1)
	holds(t, p, last, 1, 3)
}

// refused: a twin for tests may panic, for it is its user's mistake.
func refused(t *testing.T, p geomlib.Provider) {
	sector, size := int64(p.SectorSize()), p.MediaSize()
	for _, c := range []struct{ off, n int64 }{{size, sector}, {size - sector, 2 * sector}, {-sector, sector}, {1, sector}, {0, sector - 1}} {
		for what, do := range map[string]func() error{
			"read":   func() error { _, err := p.ReadAt(make([]byte, c.n), c.off); return err },
			"write":  func() error { _, err := p.WriteAt(make([]byte, c.n), c.off); return err },
			"delete": func() error { return p.Delete(c.off, c.n) },
		} {
			func() {
				defer func() { _ = recover() }()
				if err := do(); err == nil {
					t.Errorf("%s of %d bytes at %d is done", what, c.n, c.off)
				}
			}()
		}
	}
}

func zeroed(t *testing.T, p geomlib.Provider) {
	write(t, p, 0, 16, 5)
	z, ok := p.(geomlib.Zeroer)
	if !ok {
		return
	}
	sector := int64(p.SectorSize())
	if err := z.WriteZeroes(4*sector, 8*sector); errors.Is(err, geomlib.ErrNotSupported) {
		holds(t, p, 0, 16, 5)
		return
	} else if err != nil {
		t.Fatal(err)
	}
	holds(t, p, 0, 4, 5)
	holds(t, p, 4, 8, 0)
	holds(t, p, 12, 4, 5)
}

func shared(t *testing.T, p geomlib.Provider) {
	s, ok := p.(geomlib.BlockSharer)
	if !ok {
		return
	}
	write(t, p, 0, 16, 5)
	sector := int64(p.SectorSize())
	if err := s.ShareBlocks(32*sector, p, 0, 16*sector); errors.Is(err, geomlib.ErrNotSupported) {
		return // and may hold either
	} else if err != nil {
		t.Fatal(err)
	}
	write(t, p, 4, 4, 6)
	write(t, p, 44, 4, 7)
	holds(t, p, 0, 4, 5)
	holds(t, p, 4, 4, 6)
	holds(t, p, 8, 8, 5)
	holds(t, p, 32, 12, 5)
	holds(t, p, 44, 4, 7)
}

func deleted(t *testing.T, p geomlib.Provider) {
	write(t, p, 0, 32, 6)
	sector := int64(p.SectorSize())
	err := p.Delete(8*sector, 16*sector)
	if errors.Is(err, geomlib.ErrNotSupported) {
		holds(t, p, 8, 16, 6)
	} else if err != nil {
		t.Fatal(err)
	}
	holds(t, p, 0, 8, 6)
	holds(t, p, 24, 8, 6)
	write(t, p, 8, 16, 7)
	holds(t, p, 8, 16, 7)
}

func crowd(t *testing.T, p geomlib.Provider) {
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			data := bytes.Repeat([]byte{byte(i + 1)}, 4*p.SectorSize())
			off := int64(i * len(data))
			got := make([]byte, len(data))
			_, err := p.WriteAt(data, off)
			flushed := p.Flush()
			_, readErr := p.ReadAt(got, off)
			if err := errors.Join(err, readErr); err != nil || flushed != nil && !errors.Is(flushed, geomlib.ErrNotSupported) || !bytes.Equal(got, data) {
				t.Errorf("client %d: %v, %v, or it read something else", i, err, flushed)
			}
		})
	}
	all.Wait()
}
