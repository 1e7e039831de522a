package repair_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Of a map of random bytes no finding says that repair does anything for its entry, and
// repair, which refuses it as a whole, asks for no decision.
func TestAMapThatIsDamagedAsAWholeIsNotDecidedByEntries(t *testing.T) {
	const entries = 2 * 8192
	disks := voltest.Label(t, voltest.Sector, voltest.Sizes...)
	for _, d := range disks {
		voltest.SetMetadata(t, d, func(m *ondisk.Metadata) { m.VirtualSize = entries * voltest.Chunk })
	}
	var seed [32]byte
	b := make([]byte, entries*ondisk.EntrySize)
	if _, err := rand.NewChaCha8(seed).Read(b); err != nil {
		t.Fatal(err)
	}
	voltest.Write(t, disks[0], b, 0)
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, f := range r.Findings {
		if f.Virtual == nil {
			continue
		}
		listed++
		if f.Mend != check.MendByHand || strings.Contains(f.Remedy, "repair") || !strings.Contains(f.Remedy, "gvirstor restore") {
			t.Fatalf("%s: mended by %q: %s", f.Text, f.Mend, f.Remedy)
		}
	}
	if listed == 0 {
		t.Error("nothing of the map is listed")
	}
	plan := planOf(t, r, repair.Choices{Drop: []uint64{*firstOf(r).Virtual}})
	if len(plan.Refusals) != 1 || !strings.Contains(plan.Refusals[0].Text, "more of the allocation map is damaged") {
		t.Errorf("%d refusals: %+v", len(plan.Refusals), plan.Refusals[0])
	}
}

// firstOf is the first finding about an entry of the map.
func firstOf(r *check.Report) check.Finding {
	for _, f := range r.Findings {
		if f.Virtual != nil {
			return f
		}
	}
	return check.Finding{Virtual: new(uint64)}
}
