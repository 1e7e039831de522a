package virstor

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// verbFault does a verb while the nth request of a kind, over all disks, fails, or
// with sticky all from there on. Whatever came of it, the volume closes, opens
// when the disks are well again, holds what it should, and the verb can be done.
func verbFault(v *verb, seed uint64, kind disktest.Kind, nth int64, fault error, sticky bool) (met bool, err error) {
	w, err := newVerbWorld(v, seed, Config{}, new(crashCounts))
	if err != nil {
		return false, err
	}
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return false, err
	}
	var seen atomic.Int64
	for _, d := range w.disks {
		d.Inject(func(o disktest.Op) error {
			if o.Kind != kind {
				return nil
			}
			if n := seen.Add(1); n == nth || sticky && n > nth {
				return fault
			}
			return nil
		})
	}
	if w.someWrites() == nil && v.do(w) == nil {
		_ = w.someWrites()
	}
	if w.vol != nil {
		_ = w.vol.Close()
	}
	met = seen.Load() >= nth
	for _, d := range w.disks {
		d.Heal()
	}
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return met, fmt.Errorf("open: %w", err)
	}
	if err := w.resumed(); err != nil {
		return met, err
	}
	if _, err := w.readAll(w.model.at(w.rec.Len(), true)); err != nil {
		return met, err
	}
	if err := v.do(w); err != nil {
		return met, fmt.Errorf("once more: %w", err)
	}
	if v.end != nil {
		if err := v.end(w); err != nil {
			return met, err
		}
	}
	if err := w.fillEmpty(); err != nil {
		return met, fmt.Errorf("fill: %w", err)
	}
	if _, err := w.readAll(w.model.at(w.rec.Len(), true)); err != nil {
		return met, err
	}
	return met, w.vol.Close()
}

func TestEveryVerbSurvivesAFailingRequest(t *testing.T) {
	faults := map[string]error{"fails": syscall.EIO, "is done and fails": disktest.Completed(syscall.EIO)}
	stride := int64(5)
	if testing.Short() {
		stride = 19
	}
	var injected atomic.Int64
	for i, v := range verbs {
		if v.offline {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			for how, fault := range faults {
				for _, kind := range []disktest.Kind{disktest.Write, disktest.Flush} {
					for _, sticky := range []bool{false, true} {
						for nth, met := 1+int64(i)%stride, true; met; nth += stride {
							what := fmt.Sprintf("%s %d %s, sticky %v", kind, nth, how, sticky)
							within(t, 60*time.Second, what, func() {
								var err error
								if met, err = verbFault(v, uint64(i), kind, nth, fault, sticky); err != nil {
									t.Errorf("%s: %v", what, err)
								}
							})
							injected.Add(1)
							if t.Failed() {
								return
							}
						}
					}
				}
			}
		})
	}
	t.Cleanup(func() { t.Logf("%d faults injected", injected.Load()) })
}
