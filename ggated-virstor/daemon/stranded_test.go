package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// mediumReadOnly opens providers, but one only to be read.
type mediumReadOnly struct {
	Direct
	name string
}

func (o mediumReadOnly) Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error) {
	if name == o.name && !readOnly {
		return nil, fmt.Errorf("%s: open: %w", name, syscall.EROFS)
	}
	return o.Direct.Open(name, readOnly, sectorSize)
}

func TestAVolumeWhoseComponent0CanOnlyBeReadIsServedAndGoesOnWhenThatIsReplaced(t *testing.T) {
	names := labelFiles(t, 16<<20, 16<<20)
	lock := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	healthy := New(Options{Version: "test"}, Direct{LockDir: lock}, nil, log)
	if n := healthy.ServeAll(names); n != 1 {
		t.Fatalf("%d volumes", n)
	}
	s, err := healthy.findVolume("vol")
	must(t, err)
	_, err = s.vol.WriteAt([]byte("what was written before"), 5<<20)
	must(t, err)
	must(t, healthy.Close())

	d := New(Options{Version: "test"}, mediumReadOnly{Direct{LockDir: lock}, names[0]}, nil, log)
	defer func() { must(t, d.Close()) }()
	if n := d.ServeAll(names); n != 1 {
		t.Fatalf("%d volumes", n)
	}
	s, err = d.findActive("vol")
	must(t, err)
	if st := s.status(); !slices.Contains(st.Conditions, control.NoWrites) {
		t.Errorf("its conditions are %v", st.Conditions)
	}
	reads := func() {
		t.Helper()
		b := make([]byte, len("what was written before"))
		if _, err := s.vol.ReadAt(b, 5<<20); err != nil || string(b) != "what was written before" {
			t.Errorf("it reads as %q, %v", b, err)
		}
	}
	reads()
	if _, err := s.vol.WriteAt([]byte("x"), 5<<20); !errors.Is(err, virstor.ErrStranded) {
		t.Errorf("a write: %v", err)
	}
	must(t, s.vol.Replace(names[0], fileOf(t, filepath.Join(t.TempDir(), "new"), 24<<20), false, virstor.JobOptions{}))
	job, err := s.vol.WaitJob(t.Context())
	must(t, errors.Join(err, job.Err))
	reads()
	_, err = s.vol.WriteAt([]byte("w"), 5<<20)
	must(t, err)
	if st := s.status(); len(st.Conditions) > 0 {
		t.Errorf("its conditions are %v", st.Conditions)
	}
}
