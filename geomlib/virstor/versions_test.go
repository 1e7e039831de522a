package virstor

import (
	"errors"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// servedOnce labels a and b, changes the metadata of a, and serves the volume. It returns
// copies of the disks as they were labelled, and the generation that was served last.
func servedOnce(t *testing.T, change func(a *disktest.Disk)) (disks, early []*disktest.Disk, generation uint64) {
	t.Helper()
	disks = []*disktest.Disk{disktest.New("a", 16*crashChunk, 512), disktest.New("b", 16*crashChunk, 512)}
	labelled(t, 64, disks...)
	change(disks[0])
	for _, d := range disks {
		early = append(early, d.Clone().Renamed(d.Name()+" early"))
	}
	v, err := openDisks(Config{Alloc: Spread}, disks)
	mustDo(t, err)
	fillUnits(t, v, 8)
	mustDo(t, v.Close())
	return disks, early, v.meta.gen.settled
}

// Copies of all components of label's time are a volume, as one that was handed back is:
// only the host that served a later state can tell them apart.
func TestTheHostRefusesCopiesOfLabelsTimeThatAreComplete(t *testing.T) {
	disks, early, generation := servedOnce(t, func(*disktest.Disk) {})
	there := append(early, disks[0]) // b is late
	if _, err := openDisks(Config{MinGeneration: generation}, there); !errors.Is(err, ErrOldSet) {
		t.Errorf("on the host that served it: %v", err)
	}
	if o := outsideOf(t, assemblyOf(t, there), disks[0]); !errors.Is(o, ErrStale) {
		t.Errorf("%v", o)
	}
	if _, err := openDisks(Config{}, append(early, disks...)); !errors.Is(err, ErrHistories) || !strings.Contains(err.Error(), "a early") {
		t.Errorf("beside the whole volume: %v", err)
	}
	v, err := openDisks(Config{}, there) // elsewhere, as one that was handed back
	mustDo(t, err)
	mustDo(t, v.Close())
}

func TestTheHostRefusesAnOldCopyWhereNoHandingBackIsRecorded(t *testing.T) {
	disks, early, generation := servedOnce(t, func(a *disktest.Disk) {
		m := mustMeta(t, a)
		m.ChunkReserved, m.ChunkNext = 1, 1 // the map alone
		mustDo(t, geomlib.StoreMetadata(a, m))
	})
	if a := assemblyOf(t, disks); a.Err != nil || a.ext.room {
		t.Fatalf("there is room for the record, or %v: this test shows nothing", a.Err)
	}
	there := []*disktest.Disk{disks[0], early[1]}
	if _, err := openDisks(Config{MinGeneration: generation}, there); !errors.Is(err, ErrOldSet) || !strings.Contains(err.Error(), "b early") {
		t.Errorf("an old copy of the last component: %v", err)
	}
	// A handing back that was cut off looks the same; it is noted before it begins.
	v, err := openDisks(Config{}, there)
	mustDo(t, err)
	mustDo(t, v.Close())
}
