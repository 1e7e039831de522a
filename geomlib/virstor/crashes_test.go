package virstor

import (
	"fmt"
	"testing"
)

// crashRun is one run: a seed, operations, and every crash state of it.
func crashRun(seed uint64, ops, workers, random, stride int, jobs bool, cfg Config, counts *crashCounts) error {
	cfg.serial = workers == 1
	w, err := newWorld(seed, cfg, counts)
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	w.jobs = jobs
	err = w.run(ops, workers)
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	if err := w.explore(random, 0, stride); err != nil {
		return err
	}
	return w.vol.Close()
}

// crashSeeds is how many seeds a test of power loss runs. Under -race each takes
// ten times as long, and -short is given.
func crashSeeds() uint64 {
	if testing.Short() {
		return 2
	}
	return 12
}

func TestEveryInstantOfPowerLossIsSurvived(t *testing.T) {
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, 40, 1, 2, 1, false, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossUnderConcurrentWritersIsSurvived(t *testing.T) {
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, 60, 4, 2, 2, false, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossWhileChunksMoveIsSurvived(t *testing.T) {
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, 30, 1, 2, 3, true, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestEachRuleOfTheCommitOrderIsNeeded(t *testing.T) {
	for i, broken := range []struct {
		name    string
		rule    rule
		workers int
		jobs    bool
	}{
		{"data is not flushed before the map", breakDataFlush, 1, false},
		{"new chunks are not zeroed", breakZeroing, 1, false},
		{"the map is written before the data", breakMapFirst, 1, false},
		{"writes are acknowledged before the map is written", breakEarlyAck, 1, false},
		{"a freed chunk is used before its unmapping is durable", breakEarlyReuse, 1, false},
		{"the fence is lifted before the metadata is exact", breakEarlyUnfence, 1, false},
		{"an intent that was redone is redone differently", breakIntentTwice, 1, true},
		{"a flush leaves out component 0", breakFlushCoverage, 1, false},
	} {
		if testing.Short() && i%4 != 0 {
			continue // all of them in the run without -short
		}
		t.Run(broken.name, func(t *testing.T) {
			var counts crashCounts
			for seed := range uint64(60) {
				if err := crashRun(seed, 40, broken.workers, 2, 1, broken.jobs, Config{breakRule: broken.rule}, &counts); err != nil {
					t.Logf("caught after %d states: %v", counts.states.Load(), err)
					return
				}
			}
			t.Fatalf("not caught: %s", &counts)
		})
	}
}
