package verbs

import (
	"context"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// snapshotted is an engine of a volume of which chunks 0 to 3 were written, then @a was
// taken, chunk 1 written to and 2 discarded, and then @b was taken; chunk 9 was written
// since.
func snapshotted(t *testing.T) Engine {
	t.Helper()
	const chunk = 1 << 20
	vol, err := virstor.Open(labelled(t), virstor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vol.Close(); err != nil {
			t.Error(err)
		}
	})
	fill := func(first, n int64, with byte) {
		t.Helper()
		if _, err := vol.WriteAt(slices.Repeat([]byte{with}, int(n*chunk)), first*chunk); err != nil {
			t.Fatal(err)
		}
	}
	take := func(name string) {
		t.Helper()
		if err := vol.Snapshot(name); err != nil {
			t.Fatal(err)
		}
	}
	fill(0, 4, 1)
	take("a")
	fill(1, 1, 2)
	if err := vol.Discard(2*chunk, chunk); err != nil {
		t.Fatal(err)
	}
	take("b")
	fill(9, 1, 3)
	return Engine{Vol: vol, Host: shelf{}}
}

func TestADifferenceTellsDataFromHoles(t *testing.T) {
	e := snapshotted(t)
	const chunk = 1 << 20
	for _, tt := range []struct {
		from, to string
		offset   int64
		want     []control.DiffRange
	}{
		{"a", "b", 0, []control.DiffRange{{Offset: chunk, Length: chunk}, {Offset: 2 * chunk, Length: chunk, Hole: true}}},
		{"a", "", 0, []control.DiffRange{{Offset: chunk, Length: chunk}, {Offset: 2 * chunk, Length: chunk, Hole: true}, {Offset: 9 * chunk, Length: chunk}}},
		{"b", "", 0, []control.DiffRange{{Offset: 9 * chunk, Length: chunk}}},
		{"b", "", 10 * chunk, []control.DiffRange{}},
		{"a", "b", chunk + 512, []control.DiffRange{{Offset: chunk + 512, Length: chunk - 512}, {Offset: 2 * chunk, Length: chunk, Hole: true}}},
		{"", "b", 0, []control.DiffRange{{Offset: 0, Length: 2 * chunk}, {Offset: 3 * chunk, Length: chunk}}},
	} {
		d, err := e.Diff(context.Background(), "", control.DiffRequest{From: tt.from, To: tt.to, Offset: tt.offset})
		if err != nil || !slices.Equal(d.Ranges, tt.want) || d.Next != d.Size || d.Size != e.Vol.Size() {
			t.Errorf("from %q to %q: %+v, %v", tt.from, tt.to, d, err)
		}
		if (d.FromID != 0) != (tt.from != "") || (d.ToID != 0) != (tt.to != "") {
			t.Errorf("from %q to %q: ids %d, %d", tt.from, tt.to, d.FromID, d.ToID)
		}
	}
	for _, tt := range []struct {
		from, to string
		want     control.Kind
	}{{"b", "a", control.Invalid}, {"a", "a", control.Invalid}, {"c", "", control.NotFound}, {"a", "c", control.NotFound}} {
		if _, err := e.Diff(context.Background(), "", control.DiffRequest{From: tt.from, To: tt.to}); control.KindOf(err) != tt.want {
			t.Errorf("from %q to %q: %v", tt.from, tt.to, err)
		}
	}
	for _, name := range []string{"a", "b"} { // nothing holds them any more
		if err := e.Vol.DeleteSnapshot(name); err != nil {
			t.Error(err)
		}
	}
}

func TestADifferenceOfManyRangesIsToldInPieces(t *testing.T) {
	w := diffWalk{to: alternating{}, holes: true}
	for i := range maxRanges {
		if !w.changed(1, false) || !w.changed(1, true) {
			t.Fatalf("no room after %d", i)
		}
	}
	if len(w.Ranges) != maxRanges {
		t.Fatalf("%d ranges", len(w.Ranges))
	}
	next := w.Next
	if !w.changed(5, false) || w.changed(1, true) || w.Next != next+5 || len(w.Ranges) != maxRanges {
		t.Errorf("%d ranges, %d is next", len(w.Ranges), w.Next)
	}
}

// alternating is a disk of which every other byte is allocated.
type alternating struct{ disk }

func (alternating) Extents(off, n int64, emit func(int64, bool) bool) {
	for i := range n {
		if !emit(1, (off+i)%2 == 0) {
			return
		}
	}
}
