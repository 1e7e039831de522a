package repair_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// loseRecord clears both slots of the extension block.
func loseRecord(t *testing.T, disks []*disktest.Disk) {
	t.Helper()
	for slot := range 2 {
		voltest.Write(t, disks[0], make([]byte, voltest.Sector), slotOffset(t, disks[0], slot))
	}
}

// changed opens the volume on disks, has it changed, and closes it.
func changed(t *testing.T, disks []*disktest.Disk, change func(v *virstor.Volume) error) {
	t.Helper()
	v := voltest.Open(t, virstor.Config{}, disks)
	if err := errors.Join(change(v), v.Close()); err != nil {
		t.Fatal(err)
	}
}

// withoutPool is voltest.WithSnapshots with the snapshots deleted, on disks that keep what
// nothing needs any more.
func withoutPool(t *testing.T) (disks []*disktest.Disk, was ondisk.Link) {
	t.Helper()
	disks = voltest.WithSnapshots(t)
	for _, d := range disks {
		d.SetDeletes(false)
	}
	changed(t, disks, func(v *virstor.Volume) error {
		if err := v.DeleteSnapshot("a"); err != nil {
			return err
		}
		was = record(t, disks[0]).Directory
		return v.DeleteSnapshot("b")
	})
	return disks, was
}

// What an earlier pool left on the disks is not taken for the one that began after it.
func TestALostRecordIsThatOfThePoolThatBeganLast(t *testing.T) {
	disks, _ := withoutPool(t)
	changed(t, disks, func(v *virstor.Volume) error {
		_, err := v.CreateVolume("db", 8*voltest.Chunk, false)
		return err
	})
	loseRecord(t, disks)
	mend(t, disks, repair.Choices{})
	if holds, err := poolHolds(disks); err != nil || len(holds) != 1 || holds["/db"] == "" {
		t.Errorf("%v, %v", holds, err)
	}
}

// What was written after a backup that was restored is not taken for what the backup had.
func TestALostRecordIsThatOfTheBackupThatWasRestored(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	var ms []virstor.Member
	var ps []geomlib.Provider
	for _, d := range disks {
		d.SetDeletes(false)
		ms, ps = append(ms, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)}), append(ps, d)
	}
	b, err := backup.FromAssembly(ctx, virstor.Assemble(ms)[0], time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := poolHolds(disks)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time within the same second as the first
		for _, name := range []string{"later", "last"} {
			changed(t, disks, func(v *virstor.Volume) error { return v.Snapshot(name) })
		}
		if _, err := backup.Restore(ctx, ps, b, backup.RestoreOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	loseRecord(t, disks)
	mend(t, disks, repair.Choices{})
	if holds, err := poolHolds(disks); err != nil || !maps.Equal(holds, want) {
		t.Errorf("%v, %v; the backup has %v", holds, err, want)
	}
}

// A directory whose chunks hold data of the volume is of snapshots that were deleted: naming
// it would keep the volume from being served for good.
func TestADirectoryWhoseChunksAreInUseIsNotNamed(t *testing.T) {
	disks, was := withoutPool(t)
	zero := voltest.Metadata(t, disks[0])
	r := poolio.New(zero.ChunkSize, voltest.Sector)
	for _, d := range disks {
		r.Add(d, voltest.Metadata(t, d))
	}
	dir, err := r.Directory(ctx, was)
	if err != nil {
		t.Fatal(err)
	}
	free := uint64(0)
	for voltest.Entry(t, disks[0], free).Allocated() {
		free++
	}
	id, _ := dir.Member(dir.Reserve[0].Number)
	i := slices.IndexFunc(disks, func(d *disktest.Disk) bool { return voltest.Metadata(t, d).Member.ID == id })
	voltest.SetEntry(t, disks[0], free, ondisk.Entry{Flags: ondisk.FlagAllocated, Component: uint16(i), Chunk: dir.Reserve[0].Chunk}, ondisk.LittleEndian)
	loseRecord(t, disks)
	mend(t, disks, repair.Choices{})
	if holds, err := poolHolds(disks); err != nil || len(holds) != 0 {
		t.Errorf("%v, %v", holds, err)
	}
	if r := inspectAll(t, disks); !r.Clean() {
		t.Errorf("%+v", r.Findings)
	}
}

// What cannot be read may be the directory: no record is written that gives it up.
func TestNoRecordIsWrittenWhereADirectoryCannotBeLookedFor(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	want := intact(t, disks)
	link := record(t, disks[0]).Directory
	loseRecord(t, disks)
	i := slices.IndexFunc(disks, func(d *disktest.Disk) bool { return voltest.Metadata(t, d).Member.ID == link.Member })
	heals := disks[i].FailRange(disktest.Read, int64(link.Chunk)*voltest.Chunk, voltest.Chunk, syscall.EIO)
	plan := planOf(t, inspectAll(t, disks), repair.Choices{})
	if len(plan.Refusals) != 1 || !strings.Contains(plan.Refusals[0].Remedy, "copy it to another one") {
		t.Fatalf("%+v", plan)
	}
	heals()
	mend(t, disks, repair.Choices{})
	if got := intact(t, disks); !slices.Equal(got, want) {
		t.Errorf("intact are %v, were %v", got, want)
	}
}
