package gather

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// writes are what was written, each by itself.
type writes [][]byte

func (w *writes) Write(b []byte) (int, error) {
	*w = append(*w, bytes.Clone(b))
	return len(b), nil
}

func TestAStageWritesAllInOrderAndWholeRecordsButForTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 64).Draw(t, "size")
		var s Stage
		for range rapid.IntRange(1, 3).Draw(t, "calls") {
			vec := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 200)).Draw(t, "slices")
			var w writes
			if err := s.Write(&w, vec, size); err != nil {
				t.Fatal(err)
			}
			if got, want := bytes.Join(w, nil), slices.Concat(vec...); !bytes.Equal(got, want) {
				t.Fatalf("wrote %x, want %x", got, want)
			}
			for i, b := range w {
				if len(b) > size || len(b) == 0 || len(b) < size && i < len(w)-1 {
					t.Fatalf("write %d of %d has %d bytes of %d", i, len(w), len(b), size)
				}
			}
		}
	})
}
