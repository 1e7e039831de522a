package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// crashWay is how the operations of a run are done.
type crashWay struct {
	ops     int
	workers int  // 0: a crowd, which the seed decides; above 1 the scheduler decides as well
	jobs    bool // chunks move
	faulty  bool // of a crowd: disks fail now and then
	clients int  // so many with goroutines of their own, and verbs beside them
}

func (w *world) runWay(way crashWay) error {
	w.jobs = way.jobs
	if way.clients > 0 {
		w.clients = true
		return w.runClients(way.clients, way.ops)
	}
	if way.workers == 0 {
		return w.runCrowd(way.ops, way.faulty)
	}
	return w.run(way.ops, way.workers)
}

// crashRun is one run: a seed, operations, and every crash state of it.
func crashRun(seed uint64, way crashWay, b breadth, cfg Config, counts *crashCounts) error {
	cfg.serial = way.workers <= 1 && way.clients == 0
	if way.clients == 0 {
		cfg.WhenFull = Fail
	}
	counts.runs.Add(1)
	w, err := newWorld(seed, cfg, counts)
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	if err = w.runWay(way); err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	if err := w.explore(b); err != nil {
		err = fmt.Errorf("seed %d: %w", seed, err)
		if way.clients > 0 || way.workers > 1 {
			err = fmt.Errorf("%w\nthe scheduler had a share in what was asked of the disks:\n%s", err, w.told())
		}
		return errors.Join(err, w.vol.Close())
	}
	if err := w.vol.Close(); err != nil && !(way.faulty && isFailure(err)) {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	return nil
}

// told is the log of what was asked of the disks, with what metadata and map sectors were
// given: what no seed brings back.
func (w *world) told() string {
	var b strings.Builder
	for _, op := range w.rec.Log() {
		if op.Disk < 0 {
			fmt.Fprintf(&b, "%d: %v\n", op.Pos, op.Remark)
			continue
		}
		d := w.disks[op.Disk]
		fmt.Fprintf(&b, "%d: %s %d+%d on %s", op.Pos, op.Kind, op.Off, op.Len, d.Name())
		switch {
		case op.Kind != disktest.Write:
		case op.Off == d.MediaSize()-int64(w.sector):
			m, err := ondisk.DecodeMetadata(op.Data)
			fmt.Fprintf(&b, ": %+v, %v", m, err)
		case op.Len <= 4*int64(w.sector) && op.Off < w.size/w.chunk*ondisk.EntrySize:
			for at := 0; at+ondisk.EntrySize <= len(op.Data); at += ondisk.EntrySize {
				if e := op.Data[at : at+ondisk.EntrySize]; !isZero(e) {
					fmt.Fprintf(&b, " %d=%x", (op.Off+int64(at))/ondisk.EntrySize, e)
				}
			}
		case op.Len >= ondisk.ExtensionRecordSize && bytes.HasPrefix(op.Data, []byte("GVIRSTOR::EXT")):
			e, err := ondisk.DecodeExtension(op.Data)
			fmt.Fprintf(&b, ": %+v, %v", e, err)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// clientsWay is how clients with goroutines of their own are run.
func clientsWay(seed uint64) crashWay { return crashWay{ops: 60, clients: 2 + int(seed%3)} }

func clientsConfig(seed uint64) Config {
	cfg := Config{ZeroAhead: 3 * int(seed%2)}
	if seed%3 > 0 {
		cfg.WhenFull = Wait
	} else {
		cfg.WhenFull = Fail
	}
	return cfg
}

// usual is the breadth of the tests that are no soak.
var usual = breadth{stride: 1, exact: 6, random: 2, goOn: 4, fill: 4, nest: 12, nested: 1, depth: 2, absent: 8}

// quick is that of tests under -race, where everything takes ten times as long.
var quick = breadth{stride: 5, exact: 3, random: 1, goOn: 4, fill: 4, nest: 8, nested: 1, depth: 2, absent: 8}

func usually() breadth {
	if testing.Short() {
		return quick
	}
	return usual
}

// crashSeeds is how many seeds a test of power loss runs. Under -race each takes
// ten times as long, and -short is given.
func crashSeeds() uint64 {
	if testing.Short() {
		return 1
	}
	return 2
}

func TestEveryInstantOfPowerLossIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, crashWay{ops: 40, workers: 1}, usually(), Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossUnderConcurrentWritersIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, crashWay{ops: 60, workers: 4}, usually(), Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossAfterChunksWereZeroedAheadIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, crashWay{ops: 40, jobs: true, workers: 1}, usually(), Config{ZeroAhead: 3}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestPowerLossAmongRequestsThatMeetIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, crashWay{ops: 60, jobs: seed%2 == 0}, usually(), Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
	if counts.joined.Load() == 0 {
		t.Error("no request came in the midst of another")
	}
}

func TestPowerLossUnderClientsBesideVerbsIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, clientsWay(seed), usually(), clientsConfig(seed), &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
	if counts.beside.Load() == 0 || counts.orphaned.Load() == 0 {
		t.Error("no verb was done beside clients, or none of them died")
	}
}

func TestPowerLossAfterFailedRequestsIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed+1, crashWay{ops: 80, faulty: true}, usually(), Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
	if counts.faults.Load() == 0 {
		t.Error("nothing failed")
	}
}

func TestPowerLossWhileChunksMoveIsSurvived(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range crashSeeds() {
		if err := crashRun(seed, crashWay{ops: 30, workers: 1, jobs: true}, usually(), Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(&counts)
}

func TestEveryVerbInterruptedAtEveryWriteEndsInTheOldOrTheNewState(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	t.Run("all", func(t *testing.T) {
		for i, v := range verbs {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				if err := verbRun(v, uint64(i), usually(), Config{}, &counts); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
	t.Log(&counts)
}

// broken are the rules, each broken on purpose, and a verb that shows it. Without
// one it is requests that meet, on disks that fail.
var broken = []struct {
	name string
	cfg  Config
	verb string
	from uint64 // the seed that shows it first, as far as is known
}{
	{"a map sector carries entries whose data could not be flushed", pendingEntries(), "", 2},
	{"data is not flushed before the map", withoutStep("flush"), "add", 1},
	{"new chunks are not zeroed", noZeroing(), "discard and write again", 0},
	{"the map is written before the data", early("map", "data"), "add", 1},
	{"writes are acknowledged before the map is written", earlyAcknowledgement(), "add", 0},
	{"a freed chunk is used before its unmapping is durable", earlyReuse(), "discard and write again", 0},
	{"the fence is lifted before the metadata is exact", Config{breakRule: breakEarlyUnfence}, "stop with components that are full", 0},
	{"an intent that was redone is redone differently", Config{breakRule: breakIntentTwice}, "remove from the middle", 1},
	{"a flush leaves out component 0", Config{breakRule: breakFlushCoverage}, "add", 0},
	{"the map names the copy of a chunk before that is flushed", Config{breakRule: breakCopyFlush}, "evacuate", 0},
	{"a component is added without the fence", Config{breakRule: breakAddUnfenced}, "add", 0},
	{"the chunk over the last sector is given out", Config{breakRule: breakLastChunk}, "filling a volume whose last chunk is the metadata's", 0},
	{"only the head of a new chunk is zeroed", headZeroed(), "add", 0},
	{"the component that is renamed keeps its index", Config{breakRule: breakRenaming}, "remove from the middle", 0},
	{"the fence is lifted before the data is flushed", Config{breakRule: breakCloseFlush}, "stop just after a hole was filled", 0},
	{"the fence is lifted from component 0 first", Config{breakRule: breakUnfenceOrder}, "stop", 0},
	{"a generation is settled before all members have it", Config{breakRule: breakSettledEarly}, "open", 0},
	{"the fence is lifted without a note that it is", Config{breakRule: breakHandBackNote}, "stop", 0},
	{"the copy of a chunk on a component 0 that takes no writes is not flushed", Config{breakRule: breakCopyFlush}, "evacuate of a component 0 that takes no writes", 0},
	{"the map goes where data is", Config{breakRule: breakHeirInUse}, "evacuate of a component 0 that takes no writes", 0},
	{"a component 0 that could not be cleared is not named as failed", Config{breakRule: breakUnnamedZero}, "replace of the only component, which takes no writes", 0},
	{"add writes component 0 before the components that join", Config{breakRule: breakCommitFirst}, "add", 0},
}

func TestEachRuleOfTheCommitOrderIsNeeded(t *testing.T) {
	t.Parallel()
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			run := func(seed uint64, counts *crashCounts) error {
				if b.verb == "" {
					return crashRun(seed, crashWay{ops: 100, faulty: true}, usual, b.cfg, counts)
				}
				return verbRun(verbNamed(b.verb), seed, usual, b.cfg, counts)
			}
			caught := func() (uint64, string, int64) {
				var counts crashCounts
				for seed := b.from; seed < b.from+12; seed++ {
					err := run(seed, &counts)
					if err != nil {
						return seed, err.Error(), counts.states.Load()
					}
				}
				t.Fatalf("not caught: %s", &counts)
				return 0, "", 0
			}
			seed, what, states := caught()
			t.Logf("caught after %d states: %s", states, what)
			// The seed alone brings it back, in the same words.
			var counts crashCounts
			if err := run(seed, &counts); err == nil || err.Error() != what {
				t.Errorf("seed %d does not replay: %v", seed, err)
			}
		})
	}
}
