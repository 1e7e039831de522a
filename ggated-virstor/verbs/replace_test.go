package verbs

import (
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// spreadVolume is a volume whose three components a, b and c hold data.
func spreadVolume(t *testing.T) *virstor.Volume {
	t.Helper()
	const chunk, size = 1 << 20, 16<<20 + 4096
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 64 << 20, ChunkSize: chunk, ID: 7}
	var ps []geomlib.Provider
	for _, name := range []string{"a", "b", "c"} {
		ps = append(ps, disktest.New(name, size, 512))
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: name, Size: size, SectorSize: 512})
	}
	layout, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := virstor.Label(t.Context(), ps, layout, virstor.LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	var ms []virstor.Member
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(ms)[0], virstor.Config{Alloc: virstor.Spread})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range int64(6) {
		if _, err := v.WriteAt(make([]byte, 512), i*chunk); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// TestReplaceTakesNoComponentThatHoldsData: whoever names one of the volume means
// another disk, unless a replacement was filling it when it was cancelled.
func TestReplaceTakesNoComponentThatHoldsData(t *testing.T) {
	v := spreadVolume(t)
	e := Engine{Vol: v}
	replace := control.JobArgs{Providers: []string{"b"}, Target: "c", Rate: 1}
	if err := e.start("replace", replace); !errors.Is(err, virstor.ErrInUse) {
		t.Fatalf("replace by a component that holds data: %v", err)
	}
	// The engine itself asks nobody: such a job is what a daemon resumes.
	if err := v.Evacuate([]string{"b"}, "c", virstor.JobOptions{Rate: 1}); err != nil {
		t.Fatal(err)
	}
	if err := v.CancelJob(); err != nil {
		t.Fatal(err)
	}
	replace.Rate = 0
	if err := e.start("replace", control.JobArgs{Providers: []string{"c"}, Target: "a"}); !errors.Is(err, virstor.ErrInUse) {
		t.Errorf("replace by another component that holds data: %v", err)
	}
	if err := e.start("replace", replace); err != nil {
		t.Fatalf("the replacement that was cancelled, again: %v", err)
	}
	if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
		t.Fatal(s.Err, err)
	}
	if n := len(v.Status().Components); n != 2 {
		t.Errorf("%d components are left, want 2", n)
	}
}
