package disktest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// left is what a loss leaves on the disks, in short.
func left(t testing.TB, rec *Recorder, l PowerLoss) string {
	var s string
	for _, d := range rec.State(l.At, l.Pick) {
		b := read(t, d, 0, 1536)
		s += fmt.Sprint(b[0], b[512], b[1024], " ")
	}
	return s
}

func TestArrangementsAreAllSubsetsInAllOrders(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disks := []*Disk{New("a", 4096, 512), New("b", 4096, 512)}
		rec := Record(disks...)
		for i := range 3 + rng.IntN(3) {
			from := rng.IntN(3)
			mustWrite(t, disks[rng.IntN(2)], int64(from)*512, fill(512*(1+rng.IntN(3-from)), byte(i+1)))
		}
		got := make(map[string]bool)
		for l := range rec.Arrangements(rec.Len(), 1<<20) {
			got[left(t, rec, l)] = true
		}
		if rec.views(rec.Len())[0].ops != nil && len(rec.Pending(rec.Len(), 0)) > arrangeable {
			continue
		}
		if len(rec.Pending(rec.Len(), 1)) > arrangeable {
			continue
		}
		for range 400 { // random ones, shuffled, none of them torn
			l := rec.chosen(rec.Len(), func(disk int, ops []Op) []Part {
				var parts []Part
				for _, i := range rng.Perm(len(ops))[:rng.IntN(len(ops)+1)] {
					parts = append(parts, Part{Index: i})
				}
				return parts
			})
			if s := left(t, rec, l); !got[s] {
				t.Fatalf("seed %d: %s leaves %s, which is not among the %d arrangements", seed, l, s, len(got))
			}
		}
	}
}

func TestArrangementsKeepToTheirLimit(t *testing.T) {
	disks := []*Disk{New("a", 4096, 512), New("b", 4096, 512)}
	rec := Record(disks...)
	for i := range 8 {
		mustWrite(t, disks[i%2], 0, fill(512, byte(i+1)))
	}
	for _, limit := range []int{1, 10, 5000} {
		n, seen := 0, make(map[string]bool)
		for l := range rec.Arrangements(rec.Len(), limit) {
			n++
			seen[left(t, rec, l)] = true
		}
		if n > limit {
			t.Errorf("%d arrangements, at most %d", n, limit)
		}
		if limit == 5000 && len(seen) != 25 { // each disk: untouched, or one of four writes last
			t.Errorf("%d different states, want 25", len(seen))
		}
	}
}
