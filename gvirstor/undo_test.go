package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

func TestUndoLocksTheVolume(t *testing.T) {
	s := newOfflineSite(t, true)
	var id uint32
	s.with(func(v *virstor.Volume) {
		id = v.ID()
		if err := v.Stop(); err != nil {
			t.Error(err)
		}
	})
	raw, err := os.ReadFile(s.files[1])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-512+52]++ // its count
	if err := os.WriteFile(s.files[1], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	runDir, saved := filepath.Join(s.dir, "run"), filepath.Join(s.dir, "saved")
	s.must(append([]string{"repair", "-y", "--run-dir", runDir, "--save", saved}, s.files...)...)
	mended, err := os.ReadFile(s.files[1])
	if err != nil {
		t.Fatal(err)
	}
	lock, err := geomlib.LockVolume(runDir, id)
	if err != nil {
		t.Fatal(err)
	}
	undo := append([]string{"repair", "-y", "--run-dir", runDir, "--undo", saved}, s.files...)
	if status, _, errs := s.run(undo...); status != 1 || !strings.Contains(errs, "Can't undo: undo: volume ") || !strings.Contains(errs, "process ") {
		t.Errorf("undo of a locked volume: %d, %s", status, errs)
	}
	if now, err := os.ReadFile(s.files[1]); err != nil || !bytes.Equal(now, mended) {
		t.Errorf("undo of a locked volume changed it: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	s.must(undo...)
	if now, err := os.ReadFile(s.files[1]); err != nil || !bytes.Equal(now, raw) {
		t.Errorf("undo did not bring back what was there: %v", err)
	}
}
