package extblock

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// labelled is a disk of 4 MiB and the metadata of a component 0 on it with room for the
// block.
func labelled(t *testing.T) (*disktest.Disk, ondisk.Metadata, int64) {
	t.Helper()
	d := disktest.New("a", 4<<20, 512)
	m := ondisk.Metadata{Version: ondisk.VersionFenced, ID: 7, ChunkSize: 128 << 10, VirtualSize: 8 << 20, Count: 1,
		ChunkCount: 31, ChunkReserved: 2, ProviderSize: 4 << 20, Name: "t"}
	off, room := ondisk.ExtensionOffset(m)
	if !room {
		t.Fatal("no room")
	}
	return d, m, off
}

func inForce(t *testing.T, d *disktest.Disk, m ondisk.Metadata) (uint64, bool) {
	t.Helper()
	slots, room, err := Slots(d, m)
	if err != nil || !room {
		t.Fatal(room, err)
	}
	rec, ok, err := ondisk.PickExtension(slots, m)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Sequence, ok
}

// Records take the slots in turn, so that the one before stays until the next is whole.
func TestTheRecordThatWasStoredLastIsInForce(t *testing.T) {
	d, m, off := labelled(t)
	for seq := uint64(1); seq < 5; seq++ {
		e := ondisk.Extension{Sequence: seq, VolumeID: m.ID, ChunkSize: m.ChunkSize}
		if err := Store(d, off, e); err != nil {
			t.Fatal(err)
		}
		if got, ok := inForce(t, d, m); !ok || got != seq {
			t.Errorf("record %d is in force: %t, want %d", got, ok, seq)
		}
	}
	if err := Erase(d, off, ondisk.Extension{Sequence: 4}.Slot()); err != nil {
		t.Fatal(err)
	}
	if got, ok := inForce(t, d, m); !ok || got != 3 {
		t.Errorf("without the last one record %d is in force: %t, want 3", got, ok)
	}
	if err := Clear(d, m); err != nil {
		t.Fatal(err)
	}
	if got, ok := inForce(t, d, m); ok {
		t.Errorf("record %d is in force in a block that was cleared", got)
	}
}

func TestWithoutRoomThereIsNoBlock(t *testing.T) {
	d, m, _ := labelled(t)
	m.ChunkReserved = 1
	if _, room, err := Slots(d, m); room || err != nil {
		t.Error(room, err)
	}
	if err := Clear(d, m); err != nil {
		t.Error(err)
	}
	m.ChunkReserved = 100 // beyond the end of the disk
	if _, room, err := Slots(d, m); room || err != nil {
		t.Error(room, err)
	}
}

func TestAFailureNamesTheDisk(t *testing.T) {
	for kind, do := range map[disktest.Kind]func(*disktest.Disk, ondisk.Metadata, int64) error{
		disktest.Read:  func(d *disktest.Disk, m ondisk.Metadata, _ int64) error { _, _, err := Slots(d, m); return err },
		disktest.Write: func(d *disktest.Disk, _ ondisk.Metadata, off int64) error { return Store(d, off, ondisk.Extension{}) },
		disktest.Flush: func(d *disktest.Disk, _ ondisk.Metadata, off int64) error { return Erase(d, off, 0) },
	} {
		d, m, off := labelled(t)
		d.FailFrom(kind, 1, syscall.EIO)
		if err := do(d, m, off); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), " a") {
			t.Errorf("%v: %v", kind, err)
		}
	}
}
