package virstor

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// newMem makes a disk full of junk that can do no more than a disk must: it deletes
// nothing, and knows no holes.
func newMem(name string, size int64, sector int) *disktest.Disk {
	return disktest.New(name, size, sector).FillJunk(0xA5).SetDeletes(false).SetCached(false)
}

// allOf is all that d holds.
func allOf(t testing.TB, d *disktest.Disk) []byte {
	t.Helper()
	b := make([]byte, d.MediaSize())
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func label(t testing.TB, vsize, chunk int64, disks ...*disktest.Disk) {
	req := ondisk.LabelRequest{Name: "t", VirtualSize: vsize, ChunkSize: chunk, ID: 77, ChunkMultiple: ondisk.MinChunkMultiple}
	for _, d := range disks {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: d.SectorSize()})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disks[0].WriteAt(make([]byte, l.MapBytes), 0); err != nil {
		t.Fatal(err)
	}
	for i, d := range disks {
		if err := geomlib.StoreMetadata(d, l.Metadata[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, cfg Config, disks ...*disktest.Disk) *Volume {
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
