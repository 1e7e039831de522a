package virstor

import (
	"fmt"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// manySnapshots are the disks of a volume of 64 chunks with n snapshots, between which each
// time one chunk is written to.
func manySnapshots(t testing.TB, n int) []*disktest.Disk {
	t.Helper()
	d := disktest.New("a", int64(4*n+200)*crashChunk, 512)
	labelled(t, 64, d)
	v, err := openDisks(Config{WhenFull: Fail}, []*disktest.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := v.WriteAt([]byte{byte(i)}, int64(i%64)*crashChunk); err != nil {
			t.Fatal(err)
		}
		if err := v.Snapshot(fmt.Sprint("s", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return []*disktest.Disk{d}
}

func TestManySnapshotsAreOpenedWithAFewReadsEach(t *testing.T) {
	const n = 200
	disks := manySnapshots(t, n)
	before := disks[0].Count(disktest.Read)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	if reads := disks[0].Count(disktest.Read) - before; reads > 2*n+100 {
		t.Errorf("%d reads to open %d snapshots", reads, n)
	}
	sizes := v.SnapshotSizes()
	for i, s := range v.Snapshots() {
		want := SnapshotSizes{Refers: min(int64(i+1), 64) * crashChunk, Written: min(int64(n-1-i), 64) * crashChunk}
		if got := sizes[s.ID]; s.Err != nil || got != want { // 63 others have each chunk, too
			t.Fatalf("%s: %+v, want %+v, %v", s.Name, got, want, s.Err)
		}
	}
	mustDo(t, v.Close())
}

func BenchmarkOpenAThousandSnapshots(b *testing.B) {
	disks := manySnapshots(b, 1000)
	for b.Loop() {
		v, err := openDisks(Config{ReadOnly: true}, disks)
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListAThousandSnapshots(b *testing.B) {
	v, err := openDisks(Config{}, manySnapshots(b, 1000))
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	for b.Loop() {
		if len(v.Snapshots()) != len(v.SnapshotSizes()) {
			b.Fatal("some have no sizes")
		}
	}
}
