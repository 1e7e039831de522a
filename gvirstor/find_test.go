package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
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
		var lower *geomlib.TreeProvider
		for _, c := range []struct {
			class *geomlib.Class
			path  string
		}{{disk, path}, {label, path + ".label"}} {
			g := &geomlib.Geom{Name: path, Class: c.class}
			// Below /dev, as every provider.
			g.Providers = []*geomlib.TreeProvider{{Name: ".." + c.path, MediaSize: st.Size(), SectorSize: 512, Geom: g}}
			if lower != nil {
				g.Consumers = []*geomlib.Consumer{{Geom: g, Provider: lower}}
			}
			lower = g.Providers[0]
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
	b, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[3], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, text := gvirstor("add", runDir, "mydata", files[2]); status != 1 || !strings.Contains(text, "are both component 1 of mydata") {
		t.Errorf("with a copy of a component: %d, %s", status, text)
	}
	k.geoms.Classes = append(k.geoms.Classes, &geomlib.Class{Name: "VIRSTOR", Geoms: []*geomlib.Geom{{Name: "mydata"}}})
	if status, text := gvirstor("add", runDir, "mydata", files[2]); status != 1 || !strings.Contains(text, "the kernel class runs it") {
		t.Errorf("a volume that the kernel class runs: %d, %s", status, text)
	}
	for _, verb := range []string{"add", "stop"} {
		args := []string{verb, runDir, "--offline", files[0] + "," + files[1], "mydata"}
		if verb == "add" {
			args = append(args, files[2])
		}
		if status, text := gvirstor(args...); status != 1 || !strings.Contains(text, "the kernel class runs it") {
			t.Errorf("%s of named components that the kernel class runs: %d, %s", verb, status, text)
		}
	}
}

func TestAStoppedVolumeRefusesTheVerbsOfOneInService(t *testing.T) {
	e, _, _ := testEnv()
	s := newStopped(&call{env: e}, "mydata", []string{"da0"}, &where{})
	err := s.Spare(t.Context(), "mydata", control.SpareRequest{Providers: []string{"da1"}})
	if control.KindOf(err) != control.Invalid || !strings.Contains(err.Error(), "mydata is stopped: spare is for a volume in service") {
		t.Error(err)
	}
}
