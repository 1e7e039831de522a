package virstor

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

func TestAFurtherVolumeIsWhatItWasAtASnapshot(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	_, err = v.CreateVolume("web", 20*crashChunk, false)
	mustDo(t, err)
	h := openHead(t, v, "web")
	writeChunk(t, h, 1, 1)
	writeChunk(t, h, 2, 1)
	mustDo(t, h.Snapshot("a"))
	then := headHolds(t, v, "web")
	mustDo(t, h.Discard(2*crashChunk, crashChunk/2)) // of which nothing may be left
	writeChunk(t, h, 1, 2)
	writeChunk(t, h, 3, 2)
	if err := v.RollbackVolume("web", "a", true); !errors.Is(err, ErrVolumeInUse) {
		t.Errorf("in use: %v", err)
	}
	h.Release()
	for _, c := range []struct {
		volume, snapshot string
		force            bool
		want             error
	}{{"none", "a", true, ErrNoVolume}, {"web", "none", true, ErrNoSnapshot}, {"", "a", true, ErrRequest}, {"web", "a", false, ErrWouldLose}} {
		if err := v.RollbackVolume(c.volume, c.snapshot, c.force); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if loss, err := v.MayRollbackVolume("web", "a"); err != nil || loss != (Loss{Chunks: 2, Alone: 2}) {
		t.Errorf("%+v, %v", loss, err)
	}
	before := v.alloc.Available()
	mustDo(t, v.RollbackVolume("web", "a", true))
	v.catchUp()
	if freed := v.alloc.Available() - before; freed != 2 {
		t.Errorf("%d chunks come free of 2", freed)
	}
	if !bytes.Equal(headHolds(t, v, "web"), then) {
		t.Error("it holds something else")
	}
	mustDo(t, v.RollbackVolume("web", "a", false)) // nothing is lost
	h = openHead(t, v, "web")
	mustDo(t, h.Discard(2*crashChunk+crashChunk/2, crashChunk/2))
	b := make([]byte, 512)
	if _, err := h.ReadAt(b, 2*crashChunk); err != nil || b[0] != 1 {
		t.Errorf("a discard of the rest took all of the chunk: %d, %v", b[0], err)
	}
	writeChunk(t, h, 1, 3) // takes nothing of the snapshot's
	h.Release()
	mustDo(t, v.RollbackVolume("web", "a", true))
	mustDo(t, v.Close())
	v, err = openDisks(Config{serial: true}, disks)
	mustDo(t, err)
	mustDo(t, ownersAgree(v, disks))
	if !bytes.Equal(headHolds(t, v, "web"), then) {
		t.Error("it holds something else when it is opened again")
	}
	mustDo(t, v.Close())
}

// A rollback needs no chunk that writes could have.
func TestAFurtherVolumeIsRolledBackInAFullPool(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	_, err = v.CreateVolume("web", 20*crashChunk, false)
	mustDo(t, err)
	h := openHead(t, v, "web")
	writeChunk(t, h, 1, 1)
	mustDo(t, h.Snapshot("a"))
	writeChunk(t, h, 1, 2)
	h.Release()
	var taken []alloc.Phys
	for {
		grants, ok := v.alloc.Take(nil, 1, false)
		if !ok {
			break
		}
		taken = append(taken, grants[0].At)
	}
	mustDo(t, v.RollbackVolume("web", "a", true))
	if headHolds(t, v, "web")[crashChunk] != 1 {
		t.Error("it holds something else")
	}
	v.alloc.PutAll(taken)
	v.catchUp()
	mustDo(t, ownersAgree(v, disks))
	mustDo(t, v.Close())
}
