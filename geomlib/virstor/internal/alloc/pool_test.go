package alloc

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestARunIsClaimedAsItsChunksAreOneByOne, or not at all.
func TestARunIsClaimedAsItsChunksAreOneByOne(t *testing.T) {
	const end = 300
	rng := rand.New(rand.NewPCG(1, 2))
	claimed := 0
	for range 20000 {
		first := uint32(rng.IntN(3))
		run, single := NewPool(first, end), NewPool(first, end)
		for range rng.IntN(3) { // some are used
			c := uint32(rng.IntN(end))
			if run.Claim(c) != single.Claim(c) {
				t.Fatal("two new pools differ")
			}
		}
		at, n := uint32(rng.IntN(end+70)), uint32(rng.IntN(200))
		want := true
		for c := at; c < at+n; c++ {
			want = want && single.isFree(c)
		}
		before := slices.Clone(run.bits)
		// A run of none is of no interest beyond the last word.
		if got := run.ClaimRun(at, n); got != want && n > 0 {
			t.Fatalf("%d chunks from %d on: %v, %v one by one", n, at, got, want)
		}
		if !want || n == 0 {
			if !slices.Equal(run.bits, before) || run.free != single.free {
				t.Fatalf("%d chunks from %d on are refused, and some are taken", n, at)
			}
			continue
		}
		claimed++
		for c := at; c < at+n; c++ {
			single.Claim(c)
		}
		if !slices.Equal(run.bits, single.bits) || run.free != single.free {
			t.Fatalf("%d chunks from %d on: %x, %d free; one by one %x, %d", n, at, run.bits, run.free, single.bits, single.free)
		}
	}
	if claimed < 1000 {
		t.Errorf("%d runs were claimed", claimed)
	}
}
