package geomlib_test

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

func TestAHostIsKnownByTheSameNumberAgain(t *testing.T) {
	if a, b := geomlib.HostID(), geomlib.HostID(); a != b {
		t.Errorf("%x, and then %x", a, b)
	}
}

func TestTheTimeSinceTheStartOfTheHostGoesOn(t *testing.T) {
	a := geomlib.SinceBoot()
	if b := geomlib.SinceBoot(); a <= 0 || b < a {
		t.Errorf("%v, and then %v", a, b)
	}
	// It is looked at before each request to a component.
	if n := testing.AllocsPerRun(100, func() { geomlib.SinceBoot() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
