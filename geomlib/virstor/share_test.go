package virstor

import (
	"bytes"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// sharing are disks that share blocks, and how many bytes they have shared.
func sharing(t *testing.T) (disks []*disktest.Disk, shared func() int64) {
	disks = snapshotDisks(t)
	for _, d := range disks {
		d.SetShares(true)
	}
	return disks, func() (n int64) {
		for _, d := range disks {
			n += d.Shared()
		}
		return n
	}
}

func TestWhatASnapshotHoldsIsSharedWhereTheMediumCan(t *testing.T) {
	disks, shared := sharing(t)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	defer v.Close()
	want := bytes.Repeat([]byte{7}, crashChunk)
	_, err = v.WriteAt(want, 0)
	mustDo(t, err)
	mustDo(t, v.Snapshot("s"))
	held := volumeHolds(t, v)
	_, err = v.WriteAt(bytes.Repeat([]byte{8}, 4096), 8192)
	mustDo(t, err)
	if n := shared(); n != crashChunk-4096 {
		t.Errorf("%d bytes of a chunk are shared, of which 4096 are written", n)
	}
	snapshotHolds(t, v, "s", held)
	now := slices.Clone(held)
	copy(now[8192:], bytes.Repeat([]byte{8}, 4096))
	if i := differsAt(volumeHolds(t, v), now); i >= 0 {
		t.Errorf("the volume differs from byte %d on", i)
	}
}

func TestWhatCannotBeSharedIsCopied(t *testing.T) {
	disks, shared := sharing(t)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	defer v.Close()
	_, err = v.WriteAt(bytes.Repeat([]byte{7}, crashChunk), 0)
	mustDo(t, err)
	mustDo(t, v.Snapshot("s"))
	held := volumeHolds(t, v)
	for _, d := range disks {
		d.SetShares(false)
	}
	_, err = v.WriteAt([]byte{8}, 0)
	mustDo(t, err)
	if n := shared(); n != 0 {
		t.Errorf("%d bytes are shared", n)
	}
	snapshotHolds(t, v, "s", held)
}
