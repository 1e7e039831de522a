package ondisk_test

import (
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func TestAGUIDIsReadAsItIsWritten(t *testing.T) {
	for _, g := range []ondisk.GUID{0, 1, 0xfedcba9876543210} {
		if got, err := ondisk.ParseGUID(g.String()); err != nil || got != g {
			t.Errorf("%v: %v, %v", g, got, err)
		}
	}
	for _, s := range []string{"", "1", "00000000000000000", "000000000000000g", "+000000000000001"} {
		if g, err := ondisk.ParseGUID(s); err == nil {
			t.Errorf("%q is taken for %v", s, g)
		}
	}
}
