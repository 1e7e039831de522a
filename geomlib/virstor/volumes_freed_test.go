package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// volumeAway makes a volume whose map does not lie on component 0, and opens it.
func volumeAway(t *testing.T, v *Volume) *Head {
	t.Helper()
	for i := range 20 {
		name := fmt.Sprintf("v%d", i)
		_, err := v.CreateVolume(name, 20*crashChunk, false)
		mustDo(t, err)
		h := openHead(t, v, name)
		if h.stored().parts[0].at.Comp != 0 {
			return h
		}
		h.Release()
	}
	t.Fatal("the maps of all volumes lie on component 0")
	return nil
}

func writeChunk(t *testing.T, h *Head, vc uint64, b byte) {
	t.Helper()
	_, err := h.WriteAt(bytes.Repeat([]byte{b}, crashChunk), int64(vc)*crashChunk)
	mustDo(t, err)
}

// withoutCacheOf are the disks after a power loss in which one loses all that it was not
// made to flush, and the others nothing.
func withoutCacheOf(comp uint16, rec *disktest.Recorder) []*disktest.Disk {
	return rec.State(rec.Len(), func(disk int, ops []disktest.Op) []disktest.Part {
		if disk == int(comp) {
			return nil
		}
		return disktest.All(disk, ops)
	})
}

// holdsOneOf opens disks, and reads the first byte of a chunk of a volume of theirs.
func holdsOneOf(t *testing.T, disks []*disktest.Disk, name string, vc uint64, may ...byte) {
	t.Helper()
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	mustDo(t, ownersAgree(v, disks))
	if got := headHolds(t, v, name)[vc*crashChunk]; !bytes.Contains(may, []byte{got}) {
		t.Errorf("volume %s holds %d, may hold %d", name, got, may)
	}
	mustDo(t, v.Close())
}

// The map of a volume may lie on another component than the record: a flush of that one
// alone says nothing of what a snapshot of the volume had, and the map on the disk may name.
func TestWhatASnapshotOfAVolumeHadIsFreeOnceTheMapOfThatVolumeIsDurable(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail, Alloc: Spread}, disks)
	mustDo(t, err)
	rec := disktest.Record(disks...)
	h := volumeAway(t, v)
	vc := uint64(0)
	for writeChunk(t, h, vc, 1); h.chunks.Load(vc).Phys().Comp != 0; writeChunk(t, h, vc, 1) {
		vc++
	}
	had := h.chunks.Load(vc).Phys()
	mustDo(t, h.Snapshot("s"))
	mustDo(t, v.Flush())
	writeChunk(t, h, vc, 2)
	mustDo(t, h.DeleteSnapshot("s"))
	v.catchUp()
	if !v.alloc.IsFree(had) {
		t.Error("it does not come free")
	}
	for i := uint64(0); v.alloc.IsFree(had); i++ { // until somebody else has it
		writeChunk(t, &v.Head, i, 3)
	}
	holdsOneOf(t, withoutCacheOf(h.stored().parts[0].at.Comp, rec), h.ownName(), vc, 1, 2)
	mustDo(t, v.Close())
}

func TestWhatASnapshotOfADegradedVolumeHadIsKept(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	_, err = v.CreateVolume("one", 20*crashChunk, false)
	mustDo(t, err)
	h := openHead(t, v, "one")
	writeChunk(t, h, 0, 1)
	had := h.chunks.Load(0).Phys()
	mustDo(t, h.Snapshot("s"))
	home := h.stored().parts[0].at
	remove := disks[home.Comp].Inject(func(op disktest.Op) error {
		if at := int64(home.Chunk) * crashChunk; op.Kind == disktest.Write && op.Off >= at && op.Off < at+crashChunk {
			return syscall.EIO
		}
		return nil
	})
	if err := h.Discard(0, crashChunk); err == nil {
		t.Error("a chunk is given up, and the map could not be written")
	}
	mustDo(t, h.DeleteSnapshot("s"))
	v.catchUp()
	if v.alloc.IsFree(had) {
		t.Error("a chunk is free that the map on the disk names")
	}
	var left []*disktest.Disk
	for _, d := range disks {
		left = append(left, d.Survivor())
	}
	holdsOneOf(t, left, "one", 0, 1)
	remove()
	h.committer.expire()
	if !v.alloc.IsFree(had) {
		t.Error("the map was written, and the chunk is kept")
	}
	h.Release()
	mustDo(t, v.Close())
	holdsOneOf(t, disks, "one", 0, 0)
}

// A chunk stays locked while nobody knows what the map on the disk says of it. What moves it
// writes all that is in doubt of the map, also where nothing moves: it would wait for ever.
func TestAChunkMovesThatADegradedVolumeKeepsLocked(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	const perPart = crashChunk / ondisk.EntrySize
	_, err = v.CreateVolume("one", (perPart+8)*crashChunk, false)
	mustDo(t, err)
	h := openHead(t, v, "one")
	writeChunk(t, h, 0, 1)
	mustDo(t, h.Snapshot("s"))
	had := h.chunks.Load(0).Phys()
	home := h.stored().parts[0].at
	heal := disks[home.Comp].FailRange(disktest.Write, int64(home.Chunk)*crashChunk, crashChunk, syscall.EIO)
	if _, err := h.WriteAt(make([]byte, 512), 0); err == nil {
		t.Error("a write succeeds whose map sector could not be written")
	}
	h.committer.degrade.add(crashChunk / v.sector) // as of a flush that failed, of the other part
	to, ok := v.alloc.Take(nil, 1, true)
	if !ok {
		t.Fatal("no chunk is free")
	}
	r := relocation{v: v, moves: []move{{mapping{vc: 0, at: had}, to[0].At}}, off: func(p alloc.Phys) bool { return p == had }}
	mustDo(t, r.relocate())
	heal() // of what is free now
	if got := h.chunks.Load(0).Phys(); got != to[0].At {
		t.Errorf("it is at %v, not at %v", got, to[0].At)
	}
	writeChunk(t, h, 1, 1) // the volume is well again
	h.Release()
	mustDo(t, v.Close())
}

// After a crash the map of a volume cannot be written again: it is degraded, and all are
// read, and the others written to.
func TestAVolumeWhoseMapCannotBeWrittenAfterACrashIsDegradedAlone(t *testing.T) {
	disks := poolDisks(t)
	cfg := Config{serial: true, WhenFull: Fail, Alloc: Spread}
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	h := volumeAway(t, v)
	name, comp := h.ownName(), h.stored().parts[0].at.Comp
	writeChunk(t, h, 3, 1)
	var left []*disktest.Disk
	for _, d := range disks {
		left = append(left, d.Survivor())
	}
	h.Release()
	mustDo(t, v.Close())

	var met atomic.Bool
	heal := takesNone(left[comp], 1, &met)
	v, err = openDisks(cfg, left)
	mustDo(t, err)
	if got := headHolds(t, v, name)[3*crashChunk]; got != 1 {
		t.Errorf("%d is read", got)
	}
	h = openHead(t, v, name)
	if _, err := h.WriteAt(make([]byte, 512), 5*crashChunk); !errors.Is(err, ErrDegraded) {
		t.Errorf("a write that needs a chunk: %v", err)
	}
	h.Release()
	for vc := range uint64(5) {
		writeChunk(t, &v.Head, vc, 2)
	}
	mustDo(t, v.Close())
	heal()
	v, err = openDisks(cfg, left)
	mustDo(t, err)
	h = openHead(t, v, name)
	writeChunk(t, h, 5, 3)
	h.Release()
	mustDo(t, v.Close())
	holdsOneOf(t, left, name, 3, 1)
}
