package gatepub

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/serve"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish/publishtest"
)

func TestDevicesAreAPublisher(t *testing.T) {
	for name, opts := range map[string]gatetest.Options{"a quick kernel": {}, "a kernel that tastes": {Taste: true}} {
		t.Run(name, func(t *testing.T) {
			publishtest.Run(t, func(t *testing.T) publishtest.Way {
				k := gatetest.New(opts)
				t.Cleanup(k.Close)
				t.Cleanup(func() {
					if err := k.Panicked(); err != nil {
						t.Error(err)
					}
				})
				log := slog.New(slog.DiscardHandler)
				waits := units.Waits{Trust: 50 * time.Millisecond, Guess: time.Second, Confirm: 10 * time.Second}
				g := k.Open()
				p := &Publisher{Gate: g, Units: units.New(g, geomlib.NewTreeReader(k.Confxml), t.TempDir(), waits, log), Unit: gate.UnitAuto, Log: log,
					Serve: serve.Config{BufferSize: 64 << 10, Slots: 16, Receivers: 2, MayBlock: true}}
				open := func(t *testing.T, p publish.Published) publishtest.Client {
					t.Helper()
					d, err := k.OpenDev(p.Names()[0], gatetest.Reader|gatetest.Writer)
					if err != nil {
						t.Fatal(err)
					}
					return d
				}
				return publishtest.Way{Publisher: p, Open: open}
			})
		})
	}
}

// slowGEOM answers after so long who has a device open: nobody.
type slowGEOM struct {
	Units
	takes time.Duration
}

func (s slowGEOM) Mode(ctx context.Context, _ int) (geomlib.Mode, error) {
	select {
	case <-time.After(s.takes):
		return geomlib.Mode{}, nil
	case <-ctx.Done():
		return geomlib.Mode{}, fmt.Errorf("%w: %w", geomlib.ErrTreeBusy, ctx.Err())
	}
}

func TestWhoHasADeviceOpenIsWaitedForAndAStatusIsNot(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		users int
	}{{time.Second, 0}, {20 * time.Second, 0}, {time.Hour, 1}} {
		synctest.Test(t, func(t *testing.T) {
			d := &pool{first: &device{units: slowGEOM{takes: c.takes}}}
			if n, what := d.Users(); n != c.users || (what == "") != (n == 0) {
				t.Errorf("GEOM takes %v: %d users, %q", c.takes, n, what)
			}
			begin := time.Now()
			d.Describe()
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("a description took %v", took)
			}
		})
	}
}
