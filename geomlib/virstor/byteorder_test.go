package virstor_test

import (
	"bytes"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// foreign is the volume that the kernel class wrote, as that of a machine with the other
// byte order writes it: all but the map is the same.
func foreign(t *testing.T) []*disktest.Disk {
	t.Helper()
	disks := voltest.Golden(t, "../../tests/testdata/golden")
	for vc := range mapEntries(t, disks) {
		if e := voltest.Entry(t, disks[0], uint64(vc)); e.Allocated() {
			voltest.SetEntry(t, disks[0], uint64(vc), e, ondisk.BigEndian)
		}
	}
	return disks
}

// mapEntries is how many virtual chunks the volume on disks has.
func mapEntries(t *testing.T, disks []*disktest.Disk) int {
	t.Helper()
	m := voltest.Metadata(t, disks[0])
	return int(m.VirtualSize / uint64(m.ChunkSize))
}

// entries is the map on disks, read in an order; the flag of one in the other order is
// none of those that there are.
func entries(t *testing.T, disks []*disktest.Disk, order ondisk.Order) []ondisk.Entry {
	t.Helper()
	all := make([]ondisk.Entry, mapEntries(t, disks))
	raw := make([]byte, (len(all)*ondisk.EntrySize+511)/512*512)
	if _, err := disks[0].ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	for vc := range all {
		all[vc] = ondisk.DecodeEntry(raw[vc*ondisk.EntrySize:], order)
	}
	return all
}

// contents is all that the volume holds.
func contents(t *testing.T, v *virstor.Volume) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	if _, err := v.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAMapOfTheOtherByteOrderIsServedAddedToAndHandedBackInIt: entry by entry as the map
// of a little-endian kernel, with which the same is done.
func TestAMapOfTheOtherByteOrderIsServedAddedToAndHandedBackInIt(t *testing.T) {
	volumes := map[ondisk.Order][]*disktest.Disk{
		ondisk.LittleEndian: voltest.Golden(t, "../../tests/testdata/golden"), ondisk.BigEndian: foreign(t)}
	held, maps := make(map[ondisk.Order][]byte), make(map[ondisk.Order][]ondisk.Entry)
	for order, disks := range volumes {
		v := voltest.Open(t, virstor.Config{}, disks)
		chunk := v.Status().ChunkSize
		free, allocated := int64(-1), int64(-1)
		for vc, e := range entries(t, disks, order) {
			if e.Allocated() {
				allocated = int64(vc)
			} else if free < 0 {
				free = int64(vc)
			}
		}
		wait := func() error { _, err := v.WaitJob(t.Context()); return err }
		for _, do := range []func() error{
			func() error { _, err := v.WriteAt(bytes.Repeat([]byte{0xb1}, 4096), free*chunk); return err },
			func() error { return v.Discard(allocated*chunk, chunk) },
			v.Flush,
			func() error {
				return v.Add([]geomlib.Provider{disktest.New("more", disks[0].MediaSize(), 512)}, virstor.AddOptions{})
			},
			func() error { return v.Rebalance(virstor.JobOptions{}) },
			wait,
			func() error { return v.Evacuate([]string{"more"}, "", virstor.JobOptions{}) },
			wait,
			func() error { return v.Pack(virstor.JobOptions{}) },
			wait,
		} {
			if err := do(); err != nil {
				t.Fatalf("%v: %v", order, err)
			}
		}
		held[order] = contents(t, v)
		if err := v.Stop(); err != nil {
			t.Fatalf("%v: %v", order, err)
		}
		if m := voltest.Metadata(t, disks[0]); m.Version != ondisk.Version {
			t.Errorf("%v: handed back with version %d", order, m.Version)
		}
		maps[order] = entries(t, disks, order)
		again := voltest.Open(t, virstor.Config{}, disks)
		if !bytes.Equal(contents(t, again), held[order]) {
			t.Errorf("%v: it holds something else when it is opened again", order)
		}
		if err := again.Stop(); err != nil {
			t.Fatal(err)
		}
		r, err := check.Inspect(t.Context(), voltest.Providers(disks), check.Options{})
		if err != nil || !r.Clean() || r.Volumes[0].Order != order.String() {
			t.Errorf("%v: %v, %+v", order, err, r)
		}
	}
	if !bytes.Equal(held[ondisk.LittleEndian], held[ondisk.BigEndian]) {
		t.Error("the volumes do not hold the same")
	}
	for vc, e := range maps[ondisk.LittleEndian] {
		if b := maps[ondisk.BigEndian][vc]; b != e {
			t.Errorf("entry %d: %+v and %+v", vc, e, b)
		}
	}
}

// TestAMapOfTheOtherByteOrderKeepsItAfterAProcessDied: what is left to be finished is
// written in the map's order, too.
func TestAMapOfTheOtherByteOrderKeepsItAfterAProcessDied(t *testing.T) {
	disks := foreign(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	if _, err := v.WriteAt(bytes.Repeat([]byte{7}, 4096), v.Size()-4096); err != nil {
		t.Fatal(err)
	}
	want := contents(t, v)
	left := voltest.Clone(disks)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = voltest.Open(t, virstor.Config{}, left)
	if !bytes.Equal(contents(t, v), want) {
		t.Error("it holds something else")
	}
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	r, err := check.Inspect(t.Context(), voltest.Providers(left), check.Options{})
	if err != nil || !r.Clean() || r.Volumes[0].Order != "big-endian" {
		t.Errorf("%v, %+v", err, r)
	}
}
