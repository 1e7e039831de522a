package units_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAUnitIsDestroyedOnce though several ask for it while somebody is within a request, as a
// stopped worker stays, and though its number is another's when they are answered.
func TestAUnitIsDestroyedOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := gatetest.New(gatetest.Options{})
		defer k.Close()
		waits := units.Waits{Trust: time.Second, Guess: time.Second, Confirm: time.Second}
		m := units.New(k.Open(), geomlib.NewTreeReader(k.Confxml), dir, waits, slog.New(slog.DiscardHandler))
		spec := units.Spec{Key: units.Key{ID: 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512}
		first, err := m.Acquire(context.Background(), spec)
		must(t, err)
		leave := k.Within(first.Number)
		results := make(chan error, 3)
		for _, force := range []bool{false, true, false} {
			go func() { results <- m.Release(spec.Key, first.Number, force) }()
			synctest.Wait()
		}
		if len(results) > 0 {
			t.Fatal("destroyed while somebody is within a request")
		}
		leave()
		must(t, <-results)
		spec.ID = 2
		next, err := m.Acquire(context.Background(), spec)
		must(t, err)
		must(t, <-results)
		must(t, <-results)
		must(t, k.Panicked())
		if all, err := m.Units(); err != nil || len(all) != 1 || all[spec.Key].Number != next.Number {
			t.Errorf("there are %v, %v; want %v", all, err, next)
		}
	})
}
