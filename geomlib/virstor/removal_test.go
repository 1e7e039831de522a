package virstor

import (
	"errors"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// three opens a volume on three disks that has chunks 0 to 8, none of them on b.
func three(t *testing.T) (*Volume, []*disktest.Disk) {
	t.Helper()
	var disks []*disktest.Disk
	for i, n := range []string{"a", "b", "c"} {
		disks = append(disks, disktest.New(n, 16*crashChunk, 512).FillJunk(uint64(i+1)))
	}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{Alloc: Spread}, disks)
	if err != nil {
		t.Fatal(err)
	}
	for c := range int64(9) {
		if err := <-startWrite(v, c*crashChunk, uint64(c+1)).done; err != nil {
			t.Fatal(err)
		}
	}
	for c := range int64(9) {
		if v.chunks.Load(uint64(c)).Phys().Comp == 1 {
			if err := v.Discard(c*crashChunk, crashChunk); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	return v, disks
}

// holds checks that what chunk c held when three returned is there, if it was anywhere.
func holds(t *testing.T, v *Volume) {
	t.Helper()
	b := make([]byte, unit)
	n := 0
	for c := range int64(9) {
		if _, err := v.ReadAt(b, c*crashChunk); err != nil {
			t.Fatal(err)
		}
		if v.chunks.Load(uint64(c)).Allocated() {
			n++
			if idOf(b) != uint64(c+1) {
				t.Errorf("chunk %d reads as %d", c, idOf(b))
			}
		}
	}
	if n < 6 {
		t.Errorf("%d chunks are left", n)
	}
}

// The map of which a part names the last component by its new index is in order again
// before the volume is closed; the removal is not.
func TestARemovalThatStopsInTheMapIsFinishedAtTheNextStart(t *testing.T) {
	v, disks := three(t)
	heal := disks[0].FailRange(disktest.Write, 0, crashChunk/2, syscall.EIO)
	if err := v.Remove("b"); !errors.Is(err, syscall.EIO) {
		t.Fatalf("remove: %v", err)
	}
	heal()
	// A commit writes the map again first.
	for range 20 {
		v.committer.kick()
		if err := <-startWrite(v, 20*crashChunk, 21).done; err == nil {
			break
		}
	}
	if v.cond.is(stateDegraded) {
		t.Fatal("still degraded")
	}
	list := v.component(0).meta().Member.List
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err := geomlib.ReadMetadata(disks[0]); err != nil || m.Member.List != list {
		t.Errorf("component 0 has another list of members, with one in it twice (%v)", err)
	}
	v, err := openDisks(Config{}, disks)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if n := len(v.components()); n != 2 {
		t.Errorf("%d components", n)
	}
	holds(t, v)
}

func TestAnOldCopyOfComponent0WhoseRecordCannotBeReadKeepsNobodyFromOpening(t *testing.T) {
	v, disks := three(t)
	off := v.meta.ext.offset
	copied := disks[0].Clone()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	copied.FailRange(disktest.Read, off, crashChunk, syscall.EIO)
	v, err := openDisks(Config{}, append(disks, copied))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	holds(t, v)
}
