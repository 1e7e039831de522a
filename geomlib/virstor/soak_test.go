package virstor_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

var (
	soakDuration = flag.Duration("soak.duration", 0, "how long TestSoak runs; 0 skips it")
	soakSeeds    = flag.Uint64("soak.seeds", 0, "how many seeds TestSoak runs, however long it takes; 0: -soak.duration counts")
	soakRecords  = flag.Bool("soak.records", false, "of TestSoak only hostile records, of the one seed -soak.seed")
	soakSeed     = flag.Uint64("soak.seed", 1, "the first seed of TestSoak")
)

// TestSoak runs the crash harness on seed after seed, on all processors, in all its
// ways, and says what it did.
func TestSoak(t *testing.T) {
	if *soakRecords {
		if wrong := hostileSeed(t.TempDir(), *soakSeed); wrong != "" {
			t.Error(wrong)
		}
		return
	}
	if *soakDuration == 0 && *soakSeeds == 0 {
		t.Skip("-soak.duration is not given; `make soak DURATION=10m` gives it")
	}
	soak := virstor.Soak{First: *soakSeed, Seeds: *soakSeeds, Duration: *soakDuration,
		Offline: func() []virstor.OfflineVerb { return offlineVerbs(t.TempDir()) },
		Violation: func(seed uint64, err error) {
			t.Errorf("%v\nreplay: go test ./geomlib/virstor -run '^TestSoak$' -count=1 -v -soak.seeds=1 -soak.seed=%d", err, seed)
		}}
	fmt.Println(soak.Run())
	if *soakSeeds == 0 {
		// By themselves, because the memory that they take is measured.
		soakHostile(t, *soakSeed, *soakDuration/32)
	}
}

// soakHostile gives hostile records to every verb, seed after seed.
func soakHostile(t *testing.T, first uint64, d time.Duration) {
	dir, violations, seed := t.TempDir(), 0, first
	for end := time.Now().Add(d); time.Now().Before(end); seed++ {
		if wrong := hostileSeed(dir, seed); wrong != "" {
			violations++
			t.Errorf("hostile records, seed %d: %s\nreplay: go test ./geomlib/virstor -run '^TestSoak$' -count=1 -v -soak.records -soak.seed=%d", seed, wrong, seed)
		}
	}
	fmt.Printf("soak: hostile records: %d sets from seed %d, each given to every verb; %d violations\n", seed-first, first, violations)
}
