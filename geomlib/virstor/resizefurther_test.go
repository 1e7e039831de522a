package virstor

import (
	"bytes"
	"errors"
	"testing"
)

func TestAFurtherVolumeGetsLargerAndSmaller(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	_, err = v.CreateVolume("web", 20*crashChunk, false)
	mustDo(t, err)
	h := openHead(t, v, "web")
	writeChunk(t, h, 1, 1)
	writeChunk(t, h, 19, 2)
	resize := func(chunks int64, force bool) error {
		return third(v.ResizeVolume("web", chunks*crashChunk, force, false))
	}
	reopen := func() {
		t.Helper()
		h.Release()
		mustDo(t, v.Close())
		v, err = openDisks(Config{serial: true, WhenFull: Fail}, disks)
		mustDo(t, err)
		mustDo(t, ownersAgree(v, disks))
		h = openHead(t, v, "web")
	}
	holds := func(chunks ...byte) {
		t.Helper()
		got := headHolds(t, v, "web")
		for vc, want := range chunks {
			if b := got[vc*crashChunk]; b != want {
				t.Errorf("chunk %d holds %d, not %d", vc, b, want)
			}
		}
	}
	mustDo(t, resize(200, false)) // with a longer map
	writeChunk(t, h, 150, 3)
	writeChunk(t, h, 20, 4)
	reopen()
	if got := headHolds(t, v, "web"); len(got) != 200*crashChunk || got[150*crashChunk] != 3 || got[21*crashChunk] != 0 {
		t.Errorf("%d bytes", len(got))
	}
	var tail *TailError
	if err := resize(30, false); !errors.As(err, &tail) || tail.Chunks != 1 || h.Size() != 200*crashChunk {
		t.Errorf("%v, %d bytes", err, h.Size())
	}
	if rounded, lost, err := v.ResizeVolume("web", 10*crashChunk-1, false, true); err != nil || rounded != 10*crashChunk || lost != 3 {
		t.Errorf("%d, %d, %v", rounded, lost, err)
	}
	before := v.alloc.Available()
	mustDo(t, resize(19, true))
	v.catchUp()
	if freed := v.alloc.Available() - before; freed < 3 {
		t.Errorf("%d chunks come free", freed)
	}
	if err := second(h.WriteAt(make([]byte, 512), 19*crashChunk)); !errors.Is(err, ErrRange) {
		t.Errorf("beyond the end: %v", err)
	}
	reopen()
	mustDo(t, resize(40, false))
	reopen()
	holds(0, 1, 0)
	if got := headHolds(t, v, "web"); !bytes.Equal(got[2*crashChunk:], make([]byte, 38*crashChunk)) {
		t.Error("what was cut off is back")
	}
	mustDo(t, h.Snapshot("s"))
	if err := resize(39, true); !errors.Is(err, ErrLargerSnapshots) {
		t.Errorf("smaller than a snapshot: %v", err)
	}
	for _, c := range []struct {
		name string
		size int64
		want error
	}{{"", 1 << 30, ErrRequest}, {"none", 1 << 30, ErrNoVolume}, {"web", 0, ErrRequest}, {"web", 1 << 62, ErrRequest}} {
		if err := third(v.ResizeVolume(c.name, c.size, true, false)); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	h.Release()
	mustDo(t, v.Close())
}

func third[A, B any](_ A, _ B, err error) error { return err }
