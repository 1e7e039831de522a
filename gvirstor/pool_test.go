package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// withDirectory puts a record into image that has a pool's directory in force.
func withDirectory(t *testing.T, image []byte) []byte {
	t.Helper()
	image = bytes.Clone(image)
	m, err := ondisk.DecodeMetadata(image[len(image)-damagedSector:])
	if err != nil {
		t.Fatal(err)
	}
	block := image[damagedExtension:]
	e, ok, err := ondisk.PickExtension([2][]byte{block, block[ondisk.ExtensionSlotSize:]}, m)
	if !ok {
		t.Fatal("no record", err)
	}
	e.Sequence++
	e.Directory = ondisk.Link{Place: ondisk.Place{Member: m.Member.ID, Chunk: 5}, Length: 500, Sum: 1}
	if err := e.Encode(block[e.Slot()*ondisk.ExtensionSlotSize:][:damagedSector]); err != nil {
		t.Fatal(err)
	}
	return image
}

func TestVerbsForStoppedVolumesLeaveSnapshotsAndFurtherVolumesAlone(t *testing.T) {
	images, saved := wholeVolume(t, false)
	images[0] = withDirectory(t, images[0])
	const reason = "components hold snapshots or further volumes, which this version does not know"
	for i := range onDamaged(site{}) {
		dir := t.TempDir()
		s := site{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "fresh"), filepath.Join(dir, "saved"), dir}
		for name, b := range map[string][]byte{s.a: images[0], s.b: images[1], s.fresh: make([]byte, damagedSize), s.saved: saved} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := onDamaged(s)[i]
		want := reason
		switch {
		case args[0] == "clear" || args[0] == "label" || args[0] == "restore" && slices.Contains(args, "-f"):
			continue // are told to give up what there is
		case args[0] == "expand" || args[0] == "check" && slices.Contains(args, s.b) && !slices.Contains(args, s.a):
			continue // are not shown component 0, which alone knows
		case args[0] == "dump":
			if want = "500 bytes of chunk 5 of member "; slices.Contains(args, "--json") {
				want = `"length": 500`
			}
		case args[0] == "restore":
			want = "it has snapshots or further volumes, which would be lost"
		}
		e, stdout, stderr := testEnv(args...)
		code := run(context.Background(), e)
		if (code == 0) != (args[0] == "dump") || !strings.Contains(stdout.String()+stderr.String(), want) {
			t.Errorf("%v: %d, %s%s", args, code, stdout, stderr)
		}
		for i, name := range []string{s.a, s.b} {
			if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, images[i]) {
				t.Errorf("%v: wrote to %s, %v", args, name, err)
			}
		}
	}
}

func TestAForcedRestoreGivesUpSnapshots(t *testing.T) {
	images, saved := wholeVolume(t, false)
	images[0] = withDirectory(t, images[0])
	dir := t.TempDir()
	var files []string
	for i, b := range [][]byte{images[0], images[1], saved} {
		files = append(files, filepath.Join(dir, string(rune('a'+i))))
		if err := os.WriteFile(files[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, _, stderr := testEnv("restore", "-f", "--run-dir", dir, files[2], files[0], files[1])
	if run(context.Background(), e) != 0 {
		t.Fatal(stderr)
	}
	l, err := readLabel(nil, files[0])
	if err != nil || l.record == nil || l.record.Directory.Exists() {
		t.Errorf("%+v, %v", l.record, err)
	}
}
