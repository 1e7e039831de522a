package check_test

import (
	"context"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

func TestOfAHugeSparseMapOnlyWhatIsThereIsRead(t *testing.T) {
	const size = 64 << 30
	d := disktest.New("p0", size, 512)
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "huge", VirtualSize: 1 << 50, ChunkSize: 1 << 20, ID: 1,
		Providers: []ondisk.LabelProvider{{Name: "p0", Size: size, SectorSize: 512}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := virstor.Label(context.Background(), voltest.Providers([]*disktest.Disk{d}), l, virstor.LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	first := l.Metadata[0].ChunkNext
	for i, vc := range []uint64{0, 1 << 20, 1<<30 - 1} {
		voltest.SetEntry(t, d, vc, ondisk.Entry{Flags: 1, Chunk: first + uint32(i)}, ondisk.LittleEndian)
	}
	d.ResetCounts()
	r := inspect(t, check.Options{}, d)
	if v := r.Volumes[0]; v.Allocated != 3 || v.VirtualChunks != 1<<30 || !v.MapChecked {
		t.Errorf("%+v", v)
	}
	if n := d.Count(disktest.Read); n > 50 {
		t.Errorf("%d reads for three map sectors", n)
	}
}
