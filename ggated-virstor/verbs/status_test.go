package verbs

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func TestWhatIsNotReachedIsWaitedFor(t *testing.T) {
	v := Status(virstor.Status{Components: []virstor.ComponentStatus{
		{Name: "ada4"},
		{Name: "nbd://a/", Trouble: []virstor.Trouble{virstor.Unreached}, Reach: geomlib.Reach{Away: 12500 * time.Millisecond}},
		{Name: "nbd://b/", Trouble: []virstor.Trouble{virstor.Unreached}, Reach: geomlib.Reach{Away: time.Second, Gone: true}},
	}})
	if want := "0% physical free, full, waiting for nbd://a/, 12 s, lost nbd://b/"; v.State != want {
		t.Errorf("state %q, want %q", v.State, want)
	}
	if c := v.Components[1]; c.AwaySeconds != 12 || c.Gone || !slices.Equal(c.State, []control.Condition{control.Unreached}) {
		t.Errorf("%+v", c)
	}
}

func TestReservedChunksAreCountedOnce(t *testing.T) {
	v := Status(virstor.Status{
		Name: "w", Allocated: 14, Free: 46, Degraded: true, Held: virstor.HeldStatus{Count: 3, Bytes: 5000, Oldest: 61 * time.Second},
		Components: []virstor.ComponentStatus{
			{Name: "a", ChunkCount: 31, Reserved: 2, Used: 14, Free: 15},
			{Name: "b", ChunkCount: 31, Free: 31, Index: 1, FlushFailed: true},
		},
	})
	if v.PhysicalChunks != 62 || v.FreePercent() != 74 || v.Held.OldestSeconds != 61 {
		t.Errorf("%+v", v)
	}
	if want := "74% physical free, degraded, 3 writes held (5 KiB, 61 s)"; v.State != want {
		t.Errorf("state %q, want %q", v.State, want)
	}
	a, b := v.Components[0], v.Components[1]
	if a.ChunksUsed != 16 || a.StorageFreePercent != 48 || b.StorageFreePercent != 100 {
		t.Errorf("%+v %+v", a, b)
	}
	if !slices.Equal(b.State, []control.Condition{control.FlushFailed}) {
		t.Errorf("%+v", b)
	}
	if got := v.Nodes(); !slices.Equal(got, []string{"virstor/w"}) {
		t.Errorf("nodes %q", got)
	}
	j, err := json.Marshal(v)
	if err != nil || strings.Contains(string(j), "null") {
		t.Errorf("%s, %v", j, err)
	}
}
