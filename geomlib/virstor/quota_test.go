package virstor

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// limited is a pool with a further volume web that may have two chunks.
func limited(t *testing.T, cfg Config) (v *Volume, h *Head, disks []*disktest.Disk) {
	t.Helper()
	disks = poolDisks(t)
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	_, err = v.CreateLimited("web", 20*crashChunk, 2*crashChunk, false)
	mustDo(t, err)
	return v, openHead(t, v, "web"), disks
}

func sectorAt(h *Head, vc int64, b byte) error {
	_, err := h.WriteAt(bytes.Repeat([]byte{b}, 512), vc*crashChunk)
	return err
}

// noMoreThanQuota fails when a volume gets more chunks than it may, or other writes fail.
func noMoreThanQuota(t *testing.T, cfg Config) error {
	t.Helper()
	v, h, disks := limited(t, cfg)
	mustDo(t, sectorAt(h, 0, 1))
	mustDo(t, sectorAt(h, 5, 1))
	for _, vc := range []int64{1, 9} {
		if err := sectorAt(h, vc, 1); !errors.Is(err, ErrQuota) || !errors.Is(err, ErrNoSpace) {
			return errors.Join(errors.New("a third chunk is given out"), err)
		}
	}
	mustDo(t, h.Snapshot("s"))
	mustDo(t, sectorAt(h, 0, 2)) // takes the place of one that the snapshot has
	mustDo(t, h.Discard(5*crashChunk, crashChunk))
	mustDo(t, sectorAt(h, 9, 3))
	mustDo(t, sectorAt(&v.Head, 1, 1)) // has no quota
	h.Release()
	mustDo(t, v.Close())
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	h = openHead(t, v, "web")
	if err := sectorAt(h, 1, 1); !errors.Is(err, ErrQuota) {
		return errors.Join(errors.New("a third chunk is given out when it is opened again"), err)
	}
	mustDo(t, v.SetQuota("web", 3*crashChunk, false))
	mustDo(t, sectorAt(h, 1, 1))
	mustDo(t, v.SetQuota("web", crashChunk, false))
	if i := v.Volumes()[0]; i.Quota != crashChunk || i.Allocated != 3*crashChunk {
		t.Errorf("%+v", i)
	}
	mustDo(t, sectorAt(h, 1, 2)) // what it has it keeps
	if err := sectorAt(h, 2, 1); !errors.Is(err, ErrQuota) {
		t.Errorf("%v", err)
	}
	mustDo(t, v.SetQuota("web", 0, false))
	mustDo(t, sectorAt(h, 2, 1))
	mustDo(t, v.SetQuota("web", crashChunk, true))
	mustDo(t, sectorAt(h, 2, 2)) // that has changed nothing
	for _, err := range []error{v.SetQuota("", 1, false), v.SetQuota("web", -1, false), v.SetQuota("", 1, true), v.SetQuota("web", -1, true), second(v.CreateLimited("x", 1, -1, false))} {
		if !errors.Is(err, ErrRequest) {
			t.Errorf("%v", err)
		}
	}
	if err := v.SetQuota("none", 1, false); !errors.Is(err, ErrNoVolume) {
		t.Errorf("%v", err)
	}
	h.Release()
	mustDo(t, ownersAgree(v, disks))
	return v.Close()
}

func second[T any](_ T, err error) error { return err }

func TestAVolumeHasNoMoreThanItsQuota(t *testing.T) {
	for _, policy := range []FullPolicy{Fail, Wait} {
		mustDo(t, noMoreThanQuota(t, Config{serial: policy == Fail, WhenFull: policy}))
	}
}

func TestThatAQuotaIsLookedAtIsNeeded(t *testing.T) {
	if err := noMoreThanQuota(t, Config{serial: true, WhenFull: Fail, breakRule: breakQuota}); err == nil {
		t.Error("nobody noticed")
	}
}

// A write over the quota is not held, and one that is held fails when the quota gets smaller.
func TestAWriteThatWaitsForSpaceDoesNotOutliveItsQuota(t *testing.T) {
	v, h, _ := limited(t, Config{WhenFull: Wait})
	mustDo(t, v.SetQuota("web", 0, false))
	taken, ok := v.alloc.Take(nil, int(v.alloc.Available()), false)
	if !ok {
		t.Fatal("nothing is free")
	}
	ended := make(chan error, 1)
	go func() { ended <- sectorAt(h, 0, 1) }()
	for h.held.empty() {
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
	}
	mustDo(t, v.SetQuota("web", 1, false))
	v.kick()
	if err := <-ended; !errors.Is(err, ErrQuota) {
		t.Errorf("%v", err)
	}
	for _, g := range taken {
		v.alloc.Put(g.At)
	}
	h.Release()
	mustDo(t, v.Close())
}
