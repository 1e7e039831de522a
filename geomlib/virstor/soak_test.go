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
	soakDuration = flag.Duration("soak.duration", 0, "how long TestSoak runs; 0 skips it")
	soakSeed     = flag.Uint64("soak.seed", 1, "the first seed of TestSoak")
)

// TestSoak runs the crash harness on seed after seed, on all processors, in its
// three ways, and says what it did.
func TestSoak(t *testing.T) {
	if *soakDuration == 0 {
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
			for time.Now().Before(end) {
				seed := next.Add(1) - 1
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
					t.Errorf("-soak.seed=%d: %v", seed, err)
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("soak: %d seeds from %d; %s; %d violations\n",
		next.Load()-*soakSeed, *soakSeed, &counts, violations.Load())
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
