package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/state"
)

// A later start opens what is noted, so that a worker must not have a say in it.
func TestOnlyWhatTheSupervisorOpenedIsNotedAndOpenedAgain(t *testing.T) {
	p := newPair(t)
	p.s.opt.Memory = &state.Dir{Path: filepath.Join(t.TempDir(), "state")}
	m := Memory{Client: p.c}
	mine, secret, was := filepath.Join(t.TempDir(), "mine"), filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "was")
	for _, name := range []string{mine, secret, was} {
		must(t, os.WriteFile(name, make([]byte, 1<<20), 0o600))
	}
	p.lock(t, 7)
	must(t, p.s.opt.Memory.Remember(state.Volume{ID: 7, Name: "vol", Generation: 1, Providers: []string{was}}))
	p.s.names.configure([]string{mine})
	must(t, m.Remember(state.Volume{ID: 7, Name: "vol", Generation: 2, Providers: []string{mine, secret, was}}))
	if _, err := p.c.Open(was, false, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a component of before is opened though nobody asked for the note: %v", err)
	}
	got, known, err := m.Recall(7)
	if want := []string{mine, "", was}; err != nil || !known || !slices.Equal(got.Providers, want) {
		t.Errorf("recalled %q, want %q (%v)", got.Providers, want, err)
	}
	if _, err := p.c.Open(secret, false, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("what only the worker named is opened: %v", err)
	}
	opened, err := p.c.Open(was, false, 0)
	must(t, err)
	must(t, opened.Close())
}

func TestAWorkerNotesOnlyWhatItServesAndNoEarlierGeneration(t *testing.T) {
	p := newPair(t)
	m := Memory{Client: p.c}
	v := state.Volume{ID: 7, Name: "vol", Generation: 9, Providers: []string{"/dev/da0"}}
	if err := m.Remember(v); err == nil {
		t.Error("something is noted though no directory was given")
	}
	dir := &state.Dir{Path: filepath.Join(t.TempDir(), "state")}
	p.s.opt.Memory = dir
	for what, do := range map[string]func() error{
		"remember":    func() error { return m.Remember(v) },
		"begin anew":  func() error { return m.BeginAnew(7) },
		"recall":      func() error { _, _, err := m.Recall(7); return err },
		"another one": func() error { other := v; other.ID = 8; return m.Remember(other) },
	} {
		if err := do(); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s of a volume that is not served: %v", what, err)
		}
	}
	p.lock(t, 7)
	if _, known, err := m.Recall(7); known || err != nil {
		t.Errorf("before it was served: known %v, %v", known, err)
	}
	must(t, m.Remember(v))
	earlier, absurd, nameless := v, v, v
	earlier.Generation, absurd.Generation, nameless.Name = 8, 1<<63, ""
	if err := m.Remember(earlier); !errors.Is(err, state.ErrOlder) {
		t.Errorf("an earlier generation: %v", err)
	}
	for _, wrong := range []state.Volume{absurd, nameless} {
		if err := m.Remember(wrong); err == nil {
			t.Errorf("%+v is noted", wrong)
		}
	}
	if got, known, err := m.Recall(7); err != nil || !known || got.Generation != 9 {
		t.Errorf("recalled %+v, %v, %v", got, known, err)
	}
	must(t, m.BeginAnew(7))
	must(t, m.Remember(earlier))
	if got, known, err := dir.Recall(7); err != nil || !known || got.Generation != 8 {
		t.Errorf("on disk is %+v, %v, %v", got, known, err)
	}
}
