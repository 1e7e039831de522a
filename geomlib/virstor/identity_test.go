package virstor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// volumesOn are the volumes on disks.
func volumesOn(t *testing.T, disks ...*disktest.Disk) []*Assembly {
	t.Helper()
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		mustDo(t, err)
		ms = append(ms, Member{d, m})
	}
	return Assemble(ms)
}

// threeDisks is a volume on three disks that holds one unit.
func threeDisks(t *testing.T) []*disktest.Disk {
	t.Helper()
	var disks []*disktest.Disk
	for i := range 3 {
		disks = append(disks, disktest.New(fmt.Sprint("d", i), 16*crashChunk, 512))
	}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 42).done)
	mustDo(t, v.Close())
	return disks
}

func clones(disks []*disktest.Disk) []*disktest.Disk {
	var all []*disktest.Disk
	for _, d := range disks {
		all = append(all, d.Clone())
	}
	return all
}

// identities are the changes of who a volume is.
var identities = []struct {
	what string
	do   func(*Assembly) error
	want func(name string, id uint32) bool // as it was, or as it is to be
	done func(name string, id uint32) bool
}{
	{"rename", func(a *Assembly) error { return Rename(a, "other", false, nil) },
		func(name string, id uint32) bool { return id == 9 && (name == "vol" || name == "other") },
		func(name string, id uint32) bool { return id == 9 && name == "other" }},
	{"newid", func(a *Assembly) error { return NewID(a, 77, false, nil) },
		func(name string, id uint32) bool { return name == "vol" && (id == 9 || id == 77) },
		func(name string, id uint32) bool { return name == "vol" && id == 77 }},
}

func TestAVolumeGetsAnotherNameOrIDAndKeepsItsData(t *testing.T) {
	for _, c := range identities {
		disks := threeDisks(t)
		mustDo(t, c.do(volumesOn(t, disks...)[0]))
		for _, d := range disks {
			if m, err := geomlib.ReadMetadata(d); err != nil || !c.done(m.Name, m.ID) {
				t.Errorf("%s: %s says %s, %08x, %v", c.what, d.Name(), m.Name, m.ID, err)
			}
		}
		if got := unitAt(t, disks, 0); got != 42 {
			t.Errorf("%s: the volume holds %d", c.what, got)
		}
	}
}

// Whatever reaches the disks before a loss of power, the volume is there, under the old
// or the new name or id on all its members after the next opening.
func TestALossOfPowerLeavesTheOldOrTheNewNameAndIDOnAllMembers(t *testing.T) {
	for _, c := range identities {
		disks := threeDisks(t)
		r := disktest.Record(disks...)
		mustDo(t, c.do(volumesOn(t, disks...)[0]))
		rng := rand.New(rand.NewPCG(1, 2))
		for k := range r.Len() + 1 {
			for range 4 {
				left := r.State(k, disktest.Random(rng))
				as := volumesOn(t, left...)
				if len(as) != 1 || as[0].Err != nil {
					t.Fatalf("%s, after %d operations: %d volumes, %v", c.what, k, len(as), as[0].Err)
				}
				v, err := Open(as[0], Config{})
				mustDo(t, err)
				b := make([]byte, unit)
				_, err = v.ReadAt(b, 0)
				mustDo(t, errors.Join(err, v.Close()))
				first, err := geomlib.ReadMetadata(left[0])
				mustDo(t, err)
				for _, d := range left {
					m, err := geomlib.ReadMetadata(d)
					if err != nil || !c.want(m.Name, m.ID) || m.Name != first.Name || m.ID != first.ID {
						t.Errorf("%s, after %d operations: %s says %s, %08x, %v", c.what, k, d.Name(), m.Name, m.ID, err)
					}
				}
				if got := idOf(b); got != 42 {
					t.Errorf("%s, after %d operations: the volume holds %d", c.what, k, got)
				}
			}
		}
	}
}

// A cloned set whose new id did not reach all of it is one volume, and the set that it
// was cloned from another.
func TestAnInterruptedNewIDDoesNotTakeWhatItWasClonedFrom(t *testing.T) {
	original := threeDisks(t)
	copies := clones(original)
	r := disktest.Record(copies...)
	mustDo(t, NewID(volumesOn(t, copies...)[0], 77, false, nil))
	for k := range r.Len() + 1 {
		left := r.State(k, disktest.All)
		if m, err := geomlib.ReadMetadata(left[0]); err != nil || m.ID != 77 {
			continue // not committed: the sets cannot be told apart yet
		}
		found := map[uint32]bool{}
		for _, a := range volumesOn(t, append(clones(original), left...)...) {
			if a.Err != nil {
				t.Fatalf("after %d operations: %v", k, a.Err)
			}
			found[a.ID] = true
			if len(a.Members) != 3 {
				t.Errorf("after %d operations: %08x has %d members", k, a.ID, len(a.Members))
			}
		}
		if !found[9] || !found[77] {
			t.Errorf("after %d operations: %v", k, found)
		}
	}
}

func TestAVolumeThatWasHandedBackIsSoUnderItsNewName(t *testing.T) {
	disks := threeDisks(t)
	mustDo(t, settleDisks(t, disks...))
	mustDo(t, Rename(volumesOn(t, disks...)[0], "other", true, nil))
	mustDo(t, NewID(volumesOn(t, disks...)[0], 77, true, nil))
	for _, d := range disks {
		if m, err := geomlib.ReadMetadata(d); err != nil || m.Version != ondisk.Version || m.Name != "other" || m.ID != 77 {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

func TestANameOrIDThatNoVolumeCanHaveIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	disks := threeDisks(t)
	a := volumesOn(t, disks...)[0]
	for _, d := range disks {
		d.ResetCounts()
	}
	for _, name := range []string{"", "a/b", "caf\xe9", "sixteencharsname"} {
		if err := Rename(a, name, false, nil); !errors.Is(err, ondisk.ErrName) {
			t.Errorf("renamed to %q: %v", name, err)
		}
	}
	for _, id := range []uint32{0, 9} {
		if err := NewID(a, id, false, nil); !errors.Is(err, ErrRequest) {
			t.Errorf("new id %d: %v", id, err)
		}
	}
	for _, d := range disks {
		if d.Count(disktest.Write) > 0 {
			t.Errorf("%s was written to", d.Name())
		}
	}
}
