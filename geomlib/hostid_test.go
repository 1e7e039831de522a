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
}
