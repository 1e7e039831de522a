package virstor

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// inherited labels a volume of two components, lets a process do something with
// it and die, and returns the disks with its caches, recorded.
func inherited(t *testing.T, first func(v *Volume)) ([]*disktest.Disk, *disktest.Recorder) {
	t.Helper()
	disks := []*disktest.Disk{
		disktest.New("a", 6*crashChunk+4096, 512).FillJunk(1),
		disktest.New("b", 6*crashChunk+4096, 512).FillJunk(2),
	}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{Alloc: Spread, WhenFull: Fail}, disks)
	if err != nil {
		t.Fatal(err)
	}
	first(v)
	left := make([]*disktest.Disk, len(disks))
	for i, d := range disks {
		left[i] = d.Survivor()
	}
	if err := v.Close(); err != nil { // of disks that nobody looks at any more
		t.Fatal(err)
	}
	return left, disktest.Record(left...)
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// unitAt is what one unit of the volume on disks holds.
func unitAt(t *testing.T, disks []*disktest.Disk, off int64) uint64 {
	t.Helper()
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	b := make([]byte, unit)
	_, err = v.ReadAt(b, off)
	mustDo(t, err)
	mustDo(t, v.Close())
	return idOf(b)
}

func TestAFlushCoversWhatAProcessWroteThatDied(t *testing.T) {
	write := func(v *Volume, off int64, id uint64, fl Flags) {
		b := make([]byte, unit)
		fill(b, id)
		mustDo(t, v.do(OpWrite, fl, b, off, unit))
	}
	for _, activated := range []bool{false, true} {
		disks, rec := inherited(t, func(v *Volume) {
			write(v, 0, 1, 0)
			write(v, crashChunk, 2, 0)
			mustDo(t, v.Flush())
			write(v, 0, 3, 0)            // old chunks, on both components
			write(v, crashChunk, 4, 0)   //
			write(v, 2*crashChunk, 5, 0) // a new one, whose map entry is in a cache
		})
		v, err := openDisks(Config{DeferWrites: activated}, disks)
		mustDo(t, err)
		if activated {
			mustDo(t, v.Activate(nil))
		}
		mustDo(t, v.Flush())
		after := rec.State(rec.Len(), disktest.None)
		for i, want := range []uint64{3, 4, 5} {
			if got := unitAt(t, after, int64(i)*crashChunk); got != want {
				t.Errorf("activated %v: chunk %d holds %d after a flush and a loss of power, want %d", activated, i, got, want)
			}
		}
		mustDo(t, v.Close())
	}
}

func TestAChunkThatADeadProcessFreedIsNotUsedBeforeThatIsDurable(t *testing.T) {
	disks, rec := inherited(t, func(v *Volume) {
		b := make([]byte, crashChunk)
		fill(b, 7)
		for off := int64(0); ; off += crashChunk {
			if _, err := v.WriteAt(b, off); err != nil {
				break
			}
		}
		mustDo(t, v.Flush())
		mustDo(t, v.Discard(crashChunk, crashChunk)) // on component 1; the map is in component 0's cache
	})
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	b := make([]byte, unit)
	fill(b, 9)
	_, err = v.WriteAt(b, 40*crashChunk) // takes the chunk that was freed
	mustDo(t, err)
	for k := range rec.Len() + 1 {
		after := rec.State(k, func(disk int, ops []disktest.Op) []disktest.Part {
			if disk == 0 {
				return nil
			}
			return disktest.All(disk, ops)
		})
		if got := unitAt(t, after, crashChunk); got != 7 && got != zeroOp {
			t.Fatalf("power lost at %d: the discarded chunk holds %#x of another", k, got)
		}
	}
	mustDo(t, v.Close())
}
