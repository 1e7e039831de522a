package virstor

import (
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// memDisk is a plain disk full of 0xA5, without a cache to lose.
type memDisk struct {
	name   string
	sector int
	mu     sync.RWMutex
	b      []byte
}

func newMem(name string, size int64, sector int) *memDisk {
	d := &memDisk{name: name, sector: sector, b: make([]byte, size)}
	for i := range d.b {
		d.b[i] = 0xA5
	}
	return d
}

func (d *memDisk) Name() string     { return d.name }
func (d *memDisk) MediaSize() int64 { return int64(len(d.b)) }
func (d *memDisk) SectorSize() int  { return d.sector }
func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return copy(p, d.b[off:]), nil
}
func (d *memDisk) WriteAt(p []byte, off int64) (int, error) {
	if (off|int64(len(p)))%int64(d.sector) != 0 {
		panic("unaligned")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(d.b[off:], p), nil
}
func (d *memDisk) Flush() error              { return nil }
func (d *memDisk) Delete(off, n int64) error { return geomlib.ErrNotSupported }
func (d *memDisk) Close() error              { return nil }

func label(t testing.TB, vsize, chunk int64, disks ...*memDisk) {
	req := ondisk.LabelRequest{Name: "t", VirtualSize: vsize, ChunkSize: chunk, ID: 77, ChunkMultiple: ondisk.MinChunkMultiple}
	for _, d := range disks {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.name, Size: d.MediaSize(), SectorSize: d.sector})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	clear(disks[0].b[:l.MapBytes])
	for i, d := range disks {
		if err := geomlib.StoreMetadata(d, l.Metadata[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, cfg Config, disks ...*memDisk) *Volume {
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, Member{d, m})
	}
	as := Assemble(ms)
	v, err := Open(as[0], cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
