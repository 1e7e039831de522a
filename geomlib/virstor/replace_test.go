package virstor

import (
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// TestReplaceTakesNoComponentThatHoldsData: whoever names one of the volume means
// another disk, unless a replacement was filling it when it was cancelled.
func TestReplaceTakesNoComponentThatHoldsData(t *testing.T) {
	disks := []*disktest.Disk{newMem("a", 32*jobChunk, 512), newMem("b", 32*jobChunk, 512), newMem("c", 32*jobChunk, 512)}
	label(t, 128*jobChunk, jobChunk, disks...)
	v := open(t, Config{Alloc: Spread}, disks...)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range int64(6) {
		if _, err := v.WriteAt(make([]byte, 512), i*jobChunk); err != nil {
			t.Fatal(err)
		}
	}
	replace := JobArgs{Components: []string{"b"}, Target: "c", JobOptions: JobOptions{Rate: 1}}
	if err := v.StartJob("replace", replace); !errors.Is(err, ErrInUse) {
		t.Fatalf("replace by a component that holds data: %v", err)
	}
	// The engine itself asks nobody: such a job is what a daemon resumes.
	if err := v.Evacuate([]string{"b"}, "c", JobOptions{Rate: 1}); err != nil {
		t.Fatal(err)
	}
	if err := v.CancelJob(); err != nil {
		t.Fatal(err)
	}
	replace.Rate = 0
	if err := v.StartJob("replace", JobArgs{Components: []string{"c"}, Target: "a"}); !errors.Is(err, ErrInUse) {
		t.Errorf("replace by another component that holds data: %v", err)
	}
	if err := v.StartJob("replace", replace); err != nil {
		t.Fatalf("the replacement that was cancelled, again: %v", err)
	}
	if s, err := v.WaitJob(t.Context()); err != nil || s.Err != nil {
		t.Fatal(s.Err, err)
	}
	if n := len(v.Status().Components); n != 2 {
		t.Errorf("%d components are left, want 2", n)
	}
}
