package virstor

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	soakSeeds    = flag.Uint64("soak.seeds", 0, "how many seeds TestSoak runs (0: as many as fit)")
	soakDuration = flag.Duration("soak.duration", 0, "how long TestSoak runs; 0 skips it")
	soakSeed     = flag.Uint64("soak.seed", 1, "the first seed of TestSoak")
)

// TestSoak runs the crash harness on seed after seed, on all processors, in its
// three ways, and says what it did.
func TestSoak(t *testing.T) {
	if *soakDuration == 0 && *soakSeeds == 0 {
		t.Skip("-soak.duration is not given; `make soak DURATION=10m` gives it")
	}
	var counts crashCounts
	var next atomic.Uint64
	next.Store(*soakSeed)
	end := time.Now().Add(*soakDuration)
	var wg sync.WaitGroup
	var violations atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for *soakSeeds > 0 || time.Now().Before(end) {
				seed := next.Add(1) - 1
				if *soakSeeds > 0 && seed >= *soakSeed+*soakSeeds {
					return
				}
				var err error
				switch seed % 3 {
				case 0:
					err = crashRun(seed, 50, 1, 12, 1, false, Config{}, &counts)
				case 1:
					err = crashRun(seed, 80, 4, 12, 1, false, Config{}, &counts)
				case 2:
					err = crashRun(seed, 40, 1, 6, 1, true, Config{}, &counts)
				}
				if err != nil {
					violations.Add(1)
					t.Errorf("%v\nreplay: go test ./geomlib/virstor -run '^TestSoak$' -count=1 -v -soak.seeds=1 -soak.seed=%d", err, seed)
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("soak: engine: %d seeds from %d; %s; %d violations\n",
		counts.runs.Load(), *soakSeed, &counts, violations.Load())
}

func TestARunIsTheSameEachTimeForASeed(t *testing.T) {
	trace := func() string {
		var counts crashCounts
		w, err := newWorld(5, Config{serial: true}, &counts)
		if err != nil {
			t.Fatal(err)
		}
		w.jobs = true
		if err := w.run(60, 1); err != nil {
			t.Fatal(err)
		}
		var s string
		for _, o := range w.rec.Log() {
			s += o.String() + "\n"
		}
		if err := w.vol.Close(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if a, b := trace(), trace(); a != b {
		t.Error("two runs of one seed ask different things of the disks")
	}
}
