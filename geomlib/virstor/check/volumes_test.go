package check_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// What further volumes and their snapshots name is counted as the engine counts it, and what
// is wrong with the map of one is found.
func TestFurtherVolumesAreCountedAndLookedAt(t *testing.T) {
	disks := voltest.WithSnapshots(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	_, cloned := v.CloneSnapshot("a", "web", false)
	_, err := v.CreateVolume("db", 4*voltest.Size, false)
	if err = errors.Join(cloned, err); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "db"} {
		h, err := v.OpenVolume(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{0, h.Size() - voltest.Chunk} {
			if _, err := h.WriteAt(bytes.Repeat([]byte{7}, 512), off); err != nil {
				t.Fatal(err)
			}
		}
		err = h.Snapshot("s")
		h.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	s := v.Status()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	r := inspect(t, check.Options{}, disks...)
	if c := codes(r); len(c) > 0 {
		t.Errorf("findings: %v", r.Findings)
	}
	var names []string
	for _, s := range r.Volumes[0].Snapshots {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "a b /web@s /db@s" {
		t.Errorf("snapshots %q", got)
	}
	used := int64(0)
	for _, c := range r.Volumes[0].Components {
		used += int64(c.Used)
	}
	if want := s.PhysicalChunks - s.Free; used != want {
		t.Errorf("%d chunks are used, the engine says %d", used, want)
	}

	directory, _ := inPool(t, disks)
	spoiled := false
	rec, _, err := virstor.Record(disks[0], voltest.Metadata(t, disks[0]))
	if err != nil || !rec.Directory.Exists() {
		t.Fatal(err)
	}
	directory.serve(t, disks[0], func(d *ondisk.Directory) {
		for i := range d.Maps {
			if d.Maps[i].Name == "db" {
				d.Maps[i].List.Sum++
				spoiled = true
			}
		}
	})
	if !spoiled {
		t.Fatal("no volume db")
	}
	r = inspect(t, check.Options{}, disks...)
	if len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Text, "volume /db is damaged") || !strings.Contains(r.Findings[0].Remedy, "/db") {
		t.Errorf("findings: %+v", r.Findings)
	}
}
