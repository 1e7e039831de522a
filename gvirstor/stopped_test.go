package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// geomsOf is a tree of a class of disks and of another whose providers show the
// same sectors.
func geomsOf(disks ...string) *geomlib.Tree {
	disk, label := &geomlib.Class{Name: "DISK"}, &geomlib.Class{Name: "LABEL"}
	for _, path := range disks {
		st, err := os.Stat(path)
		if err != nil {
			continue
		}
		for _, c := range []struct {
			class *geomlib.Class
			rank  int
			path  string
		}{{disk, 1, path}, {label, 2, path + ".label"}} {
			g := &geomlib.Geom{Name: path, Rank: c.rank, Class: c.class}
			g.Providers = []*geomlib.TreeProvider{{Name: c.path, MediaSize: st.Size(), SectorSize: 512, Geom: g}}
			c.class.Geoms = append(c.class.Geoms, g)
		}
	}
	return &geomlib.Tree{Classes: []*geomlib.Class{label, disk}}
}

func TestComponentsOfAStoppedVolumeAreFoundInTheTree(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"da0", "da1", "da2", "empty"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 64<<20); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, path+".label"); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	k := new(fakeKernel)
	gvirstor := func(args ...string) (int, string) {
		e, _, stderr := testEnv(args...)
		e.kernel = k
		status := run(t.Context(), e)
		return status, stderr.String()
	}
	runDir := "--run-dir=" + dir
	if status, text := gvirstor("label", "-s", "1g", "-m", "1m", "mydata", files[0], files[1]); status != 0 {
		t.Fatal(text)
	}
	k.geoms = geomsOf(files...)
	if status, text := gvirstor("add", runDir, "mydata", files[2]); status != 0 {
		t.Fatal(text)
	}
	if status, text := gvirstor("check", files[0], files[1], files[2]); status != 0 {
		t.Fatal(text)
	}
	k.geoms = geomsOf(files[0], files[2])
	if status, text := gvirstor("remove", runDir, "mydata", files[2]); status != 1 || !strings.Contains(text, "component 1 of 3 of mydata is missing") {
		t.Errorf("with a component missing: %d, %s", status, text)
	}
	k.geoms = geomsOf(files...)
	if status, text := gvirstor("remove", runDir, "mydata", files[2]); status != 0 {
		t.Error(text)
	}
	if status, text := gvirstor("remove", runDir, "other", files[2]); status != 1 || !strings.Contains(text, "other") {
		t.Errorf("a volume that is not there: %d, %s", status, text)
	}
	k.geoms.Classes = append(k.geoms.Classes, &geomlib.Class{Name: "VIRSTOR", Geoms: []*geomlib.Geom{{Name: "mydata"}}})
	if status, text := gvirstor("add", runDir, "mydata", files[2]); status != 1 || !strings.Contains(text, "the kernel class runs it") {
		t.Errorf("a volume that the kernel class runs: %d, %s", status, text)
	}
}
