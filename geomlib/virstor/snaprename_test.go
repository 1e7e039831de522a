package virstor

import (
	"errors"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// calledNow is what v's snapshots are called, the oldest first.
func calledNow(v *Volume) string {
	var names []string
	for _, s := range v.Snapshots() {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func TestASnapshotGetsAnotherNameAndKeepsAllElse(t *testing.T) {
	v, disks, want := withSnapshot(t, Config{})
	mustDo(t, v.Snapshot("tuesday"))
	before := v.Snapshots()[0]
	for name, c := range map[string]struct {
		to   string
		want error
	}{
		"never": {"other", ErrNoSnapshot}, "monday": {"tuesday", ErrSnapshotExists}, "tuesday": {"a/b", ondisk.ErrMapName},
	} {
		for _, err := range []error{v.RenameSnapshot(name, c.to, true), v.RenameSnapshot(name, c.to, false)} {
			if !errors.Is(err, c.want) {
				t.Errorf("%s to %s: %v", name, c.to, err)
			}
		}
	}
	mustDo(t, v.RenameSnapshot("monday", "other", true))
	w, err := v.OpenSnapshot("monday")
	mustDo(t, err)
	if err := v.RenameSnapshot("monday", "other", false); !errors.Is(err, ErrSnapshotInUse) {
		t.Error(err)
	}
	w.Close()
	free := v.Status().Free
	mustDo(t, v.SetReserve(free)) // it needs no chunk
	mustDo(t, v.RenameSnapshot("monday", "other", false))
	before.Name = "other"
	if got := v.Snapshots()[0]; got != before || calledNow(v) != "other tuesday" || v.Status().Free != free {
		t.Errorf("%+v, %s, %d chunks are free of %d", got, calledNow(v), v.Status().Free, free)
	}
	mustDo(t, v.SetReserve(0))
	mustDo(t, v.Snapshot("monday"))
	mustDo(t, v.Close())
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	if calledNow(v) != "other tuesday monday" {
		t.Error(calledNow(v))
	}
	snapshotHolds(t, v, "other", want)
	mustDo(t, v.DeleteSnapshot("other"))
	mustDo(t, v.Close())
}
