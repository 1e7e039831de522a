package virstor_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

var (
	soakDuration = flag.Duration("soak.duration", 0, "how long TestSoak runs; 0 skips it")
	soakSeed     = flag.Uint64("soak.seed", 1, "the first seed of TestSoak")
)

// TestSoak runs the crash harness on seed after seed, on all processors, in all its
// ways, and says what it did.
func TestSoak(t *testing.T) {
	if *soakDuration == 0 {
		t.Skip("-soak.duration is not given; `make soak DURATION=10m` gives it")
	}
	offline := func() []virstor.OfflineVerb { return offlineVerbs(t.TempDir()) }
	fmt.Println(virstor.Soak(*soakSeed, *soakDuration, offline, func(err error) { t.Error(err) }))
}
