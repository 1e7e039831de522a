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

func TestEveryInstantOfPowerLossIsSurvived(t *testing.T) {
	var counts crashCounts
	for seed := range uint64(12) {
		if err := crashRun(seed, 40, 1, 2, 1, false, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossUnderConcurrentWritersIsSurvived(t *testing.T) {
	var counts crashCounts
	for seed := range uint64(12) {
		if err := crashRun(seed, 60, 4, 2, 2, false, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossWhileChunksMoveIsSurvived(t *testing.T) {
	var counts crashCounts
	for seed := range uint64(12) {
		if err := crashRun(seed, 30, 1, 2, 3, true, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}
