package virstor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// history is what the disks were asked in a run and in the recoveries from its
// crash states, in the order of these.
type history []string

func (h *history) saw(how string, log []disktest.Op) {
	var b strings.Builder
	fmt.Fprintln(&b, how)
	for _, o := range log {
		fmt.Fprintf(&b, "d%d %s\n", o.Disk, o)
	}
	*h = append(*h, b.String())
}

// sameHistory runs what a seed decides twice, and fails the test unless both ask
// the same of the disks.
func sameHistory(t *testing.T, what string, run func(counts *crashCounts, saw func(how string, log []disktest.Op)) error) {
	t.Helper()
	var two [2]history
	for i := range two {
		counts := crashCounts{saw: two[i].saw}
		if err := run(&counts, two[i].saw); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i, first := range two[0] {
		if i >= len(two[1]) || two[1][i] != first {
			second := slices.Concat(two[1], history{"nothing"})[i]
			t.Fatalf("%s: two runs of one seed differ in history %d of %d:\n%s\n%s", what, i, len(two[0]), first, second)
		}
	}
	if len(two[0]) != len(two[1]) {
		t.Fatalf("%s: two runs of one seed have %d and %d histories", what, len(two[0]), len(two[1]))
	}
}

// repeated is the breadth in which a run is compared with another: few states, and
// what follows them in all ways.
var repeated = breadth{stride: 40, exact: 1, random: 1, goOn: 1, fill: 4, nest: 1, nested: 1, depth: 2}

func TestARunIsTheSameEachTimeForASeed(t *testing.T) {
	t.Parallel()
	ways := []crashWay{{ops: 40, workers: 1, jobs: true}, {ops: 60}, {ops: 60, jobs: true}, {ops: 60, faulty: true}}
	for i, way := range ways {
		seed := uint64(i)
		sameHistory(t, fmt.Sprintf("%+v, seed %d", way, seed), func(counts *crashCounts, saw func(string, []disktest.Op)) error {
			w, err := newWorld(seed, Config{serial: true}, counts)
			if err != nil {
				return err
			}
			if err := w.runWay(way); err != nil {
				return err
			}
			saw("the run", w.rec.Log())
			b := repeated
			b.stride *= 2
			if err := w.explore(b); err != nil {
				return err
			}
			if err := w.vol.Close(); err != nil && !way.faulty {
				return err
			}
			return nil
		})
	}
}

func TestAVerbAndItsRecoveriesAreTheSameEachTimeForASeed(t *testing.T) {
	for i, v := range verbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			sameHistory(t, v.name, func(counts *crashCounts, saw func(string, []disktest.Op)) error {
				w, err := newVerbWorld(v, uint64(i), Config{}, counts)
				if err == nil {
					err = w.wholeLife()
				}
				if err != nil {
					return err
				}
				saw("the verb", w.rec.Log())
				return w.explore(repeated)
			})
		})
	}
}
