package virstor_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

var (
	soakDuration = flag.Duration("soak.duration", 0, "how long TestSoak runs; 0 skips it")
	soakSeeds    = flag.Uint64("soak.seeds", 0, "how many seeds TestSoak runs, however long it takes; 0: -soak.duration counts")
	soakSeed     = flag.Uint64("soak.seed", 1, "the first seed of TestSoak")
)

// TestSoak runs the crash harness on seed after seed, on all processors, in all its
// ways, and says what it did.
func TestSoak(t *testing.T) {
	if *soakDuration == 0 && *soakSeeds == 0 {
		t.Skip("-soak.duration is not given; `make soak DURATION=10m` gives it")
	}
	soak := virstor.Soak{First: *soakSeed, Seeds: *soakSeeds, Duration: *soakDuration,
		Offline: func() []virstor.OfflineVerb { return offlineVerbs(t.TempDir()) },
		Violation: func(seed uint64, err error) {
			t.Errorf("%v\nreplay: go test ./geomlib/virstor -run '^TestSoak$' -count=1 -v -soak.seeds=1 -soak.seed=%d", err, seed)
		}}
	fmt.Println(soak.Run())
}
