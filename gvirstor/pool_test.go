package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// openVolume opens the volume on files.
func openVolume(t *testing.T, files ...string) *virstor.Volume {
	t.Helper()
	var ms []virstor.Member
	for _, f := range files {
		p, err := geomlib.Open(f, geomlib.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(ms)[0], virstor.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// aSnapshot makes a volume with a snapshot, whose first chunk was overwritten since, and a
// backup of before. It returns their images.
func aSnapshot(t *testing.T) (images [3][]byte) {
	t.Helper()
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "saved")}
	for _, f := range files[:2] {
		if err := os.WriteFile(f, make([]byte, 24<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(args ...string) {
		if e, _, stderr := testEnv(args...); run(context.Background(), e) != 0 {
			t.Fatal(stderr)
		}
	}
	must("label", "-s", "64m", "-m", "1m", "vol", files[0], files[1])
	must("backup", files[2], files[0], files[1])
	v := openVolume(t, files[:2]...)
	_, err := v.WriteAt(bytes.Repeat([]byte{1}, 4096), 0)
	if err == nil {
		err = v.Snapshot("monday")
	}
	if err == nil {
		_, err = v.WriteAt(bytes.Repeat([]byte{2}, 4096), 0)
	}
	if err == nil {
		err = v.Close()
	}
	for i, f := range files {
		if err == nil {
			images[i], err = os.ReadFile(f)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func TestVerbsForStoppedVolumesLeaveSnapshotsAlone(t *testing.T) {
	images := aSnapshot(t)
	for i := range onDamaged(site{}) {
		dir := t.TempDir()
		s := site{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "fresh"), filepath.Join(dir, "saved"), dir}
		for name, b := range map[string][]byte{s.a: images[0], s.b: images[1], s.saved: images[2], s.fresh: make([]byte, damagedSize)} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args, files := onDamaged(s)[i], []string{s.a, s.b}
		want, status := "", 1
		switch verb := args[0]; {
		case verb == "clear" || verb == "label" || verb == "restore" && slices.Contains(args, "-f"):
			continue // are told to give up what there is
		case verb == "expand" || verb == "check" && !slices.Contains(args, s.a):
			want = "" // are not shown component 0, which alone knows
		case verb == "dump" && slices.Contains(args, "--json"):
			want, status = `"directory": {`, 0
		case verb == "dump":
			want, status = " bytes of chunk ", 0
		case verb == "check" && slices.Contains(args, "--json"):
			want, status = `"name": "monday"`, 0
		case verb == "check":
			want, status = "1 snapshot", 0
		case verb == "map":
			status = 0
		case verb == "backup":
			status = 0
		case verb == "repair" && slices.Contains(args, "--drop"):
			want = ""
		case verb == "repair":
			want, status = "vol: nothing to repair.", 0
		case verb == "restore":
			want = "it has snapshots or further volumes, which would be lost"
		case verb == "add":
			want, status, files = "", 0, append(files, s.fresh)
		case verb == "remove":
			status, files = 0, files[:1]
		case verb == "replace":
			want = "bytes are missing" // of another that is as small
		case verb == "pack" || verb == "rebalance" || verb == "reclaim" || verb == "resize":
			status = 0
		case verb == "evacuate":
			status, files = 0, files[1:]
		case verb == "stop" || verb == "destroy":
			want, status = "it has snapshots, which the kernel class would write over: send away what is wanted of them, then delete them (monday)", 0
		}
		e, stdout, stderr := testEnv(args...)
		if code := run(context.Background(), e); code != status || !strings.Contains(stdout.String()+stderr.String(), want) {
			t.Errorf("%v: %d, %s%s", args, code, stdout, stderr)
			continue
		}
		v := openVolume(t, files...)
		if all := v.Snapshots(); len(all) != 1 || all[0].Name != "monday" || all[0].Err != nil {
			t.Errorf("%v: left %+v", args, all)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// aPool puts the images of aSnapshot into files.
func aPool(t *testing.T) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for i, b := range aSnapshot(t) {
		files = append(files, filepath.Join(dir, string(rune('a'+i))))
		if err := os.WriteFile(files[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestSnapshotsAreInABackup(t *testing.T) {
	files := aPool(t)
	saved := filepath.Join(t.TempDir(), "saved")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"backup", "-v", saved, files[0], files[1]}, "snapshots: monday"},
		{[]string{"clear", files[0]}, ""},
		{[]string{"restore", "-v", "--in-order", "--run-dir", t.TempDir(), saved, files[0], files[1]}, "Snapshots: monday"},
		{[]string{"map", "--ascii", "--snapshot", "monday", files[0], files[1]}, "vol@monday: 1 of 64 chunks allocated"},
		{[]string{"check", files[0], files[1]}, "1 snapshot"},
	} {
		e, stdout, stderr := testEnv(c.args...)
		if run(context.Background(), e) != 0 || !strings.Contains(stdout.String(), c.says) {
			t.Errorf("%v: %s%s", c.args, stdout, stderr)
		}
	}
	e, _, stderr := testEnv("map", "--snapshot", "friday", files[0], files[1])
	if run(context.Background(), e) == 0 || !strings.Contains(stderr.String(), "no snapshot of that name: friday") {
		t.Error(stderr)
	}
}

func TestAFurtherVolumeIsDrawnByItsComponents(t *testing.T) {
	files := aPool(t)[:2]
	v := openVolume(t, files...)
	_, err := v.CreateVolume("web", 3<<20, false)
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(files[0]))
	for _, c := range []struct {
		args []string
		says string
		code int
	}{
		{[]string{"map", "--ascii", "--volume", "web", files[0], files[1]}, "vol/web: 0 of 3 chunks allocated", 0},
		{[]string{"map", "--json", "--volume", "web", files[0], files[1]}, `"name": "vol/web"`, 0},
		{[]string{"map", "--volume", "ftp", files[0], files[1]}, "no further volume of that name: ftp", 1},
		{[]string{"map", "./" + filepath.Base(files[0])}, "missing", 1}, // a file in this folder
		{[]string{"map", "vol/web"}, "there is no such provider", 1},
	} {
		e, stdout, stderr := testEnv(c.args...)
		if code := run(context.Background(), e); code != c.code || !strings.Contains(stdout.String()+stderr.String(), c.says) {
			t.Errorf("%v: %d, %s%s", c.args, code, stdout, stderr)
		}
	}
}

func TestADamagedSnapshotTakesAWordAndForceToBeGivenUp(t *testing.T) {
	files := aPool(t)[:2]
	d, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The only system chunk that begins with an allocated entry is the snapshot's map.
	found := false
	for chunk := int64(2); chunk < 20; chunk++ {
		b := make([]byte, 8)
		if _, err := d.ReadAt(b, chunk<<20); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b[:2], []byte{1, 0}) && bytes.Equal(b[2:4], []byte{0, 0}) && b[4] > 0 && b[4] < 20 && b[5] == 0 {
			found = true
			if _, err := d.WriteAt([]byte{7}, chunk<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Close(); err != nil || !found {
		t.Fatal(err, found)
	}
	dir := t.TempDir()
	verb := func(opts ...string) []string {
		return append(append([]string{"repair", "--run-dir", dir, "--save", filepath.Join(dir, "saved")}, opts...), files...)
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{verb(), 1, "--give-up monday"},
		{verb("-y", "--give-up", "monday"), 1, "what only snapshots hold is given up by that: monday (-f)"},
		{verb("-fy", "--give-up", "friday"), 1, "there is no damaged snapshot friday"},
		{verb("-fy", "--give-up", "monday"), 0, "vol is repaired"},
		{append([]string{"check"}, files...), 0, "No errors."},
	} {
		e, stdout, stderr := testEnv(c.args...)
		if got := run(context.Background(), e); got != c.status || !strings.Contains(stdout.String()+stderr.String(), c.says) {
			t.Errorf("%v: %d, %s%s", c.args, got, stdout, stderr)
		}
	}
}

func TestAForcedRestoreGivesUpSnapshots(t *testing.T) {
	files := aPool(t)
	e, _, stderr := testEnv("restore", "-f", "--run-dir", t.TempDir(), files[2], files[0], files[1])
	if run(context.Background(), e) != 0 {
		t.Fatal(stderr)
	}
	v := openVolume(t, files[:2]...)
	if all := v.Snapshots(); len(all) > 0 {
		t.Errorf("left %+v", all)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
