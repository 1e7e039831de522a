package verbs

import (
	"log/slog"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

func TestAVolumeGetsItsNameItsIDOrBoth(t *testing.T) {
	for _, c := range []struct {
		r    control.IdentifyRequest
		name string
		id   uint32
	}{
		{control.IdentifyRequest{Name: "other"}, "other", 7},
		{control.IdentifyRequest{NewID: true}, "vol", 9},
		{control.IdentifyRequest{Name: "other", NewID: true}, "other", 9},
	} {
		for _, handBack := range []bool{false, true} {
			a := labelled(t)
			if err := Identify(a, c.r, func() uint32 { return 9 }, handBack, slog.New(slog.DiscardHandler)); err != nil {
				t.Errorf("%+v: %v", c.r, err)
			}
			for _, m := range a.Members {
				md, err := geomlib.ReadMetadata(m.Provider)
				if err != nil {
					t.Fatal(err)
				}
				if md.Name != c.name || md.ID != c.id || (md.Version == ondisk.Version) != handBack {
					t.Errorf("%+v, handed back %v: %s is of %s, %08x, version %d", c.r, handBack, m.Provider.Name(), md.Name, md.ID, md.Version)
				}
			}
		}
	}
}
