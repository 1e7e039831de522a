package virstor

import (
	"errors"
	"flag"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

var everyFault = flag.Bool("soak.faults", false, "tests of failing requests fail each one of a verb rather than a sample")

// verbFault is a request of a verb that fails.
type verbFault struct {
	kind   disktest.Kind
	nth    int64
	err    error
	sticky bool // and all after it of the same disk
}

func (f verbFault) String() string {
	s := fmt.Sprintf("%s %d failing with %v", f.kind, f.nth, f.err)
	var part disktest.Partial
	if errors.As(f.err, &part) {
		s += " in its midst"
	}
	if f.sticky {
		s += " and all after it"
	}
	return s
}

// verbFaultRun does a verb while a disk fails, and once more if it is told so. When the
// disk is well again and the volume opened anew, that must hold what was
// acknowledged, and the verb must come to its end. met is whether there was
// such a request.
func verbFaultRun(v *verb, seed uint64, f verbFault, counts *crashCounts) (met bool, err error) {
	w, err := newVerbWorld(v, seed, Config{}, counts)
	if err != nil {
		return false, err
	}
	w.insists = true
	var seen atomic.Int64
	for _, d := range w.disks {
		d.SetForgetful(true)
		defer d.Inject(func(o disktest.Op) error {
			failing := w.failing.Load()
			if o.Kind != f.kind || failing != nil && !(f.sticky && failing == d) {
				return nil
			}
			if failing == nil && seen.Add(1) < f.nth {
				return nil
			}
			w.failing.Store(d)
			return f.err
		})()
	}
	err = w.wholeLife()
	if w.failing.Load() == nil {
		return false, err
	}
	counts.faults.Add(1)
	if err != nil && !w.comesOf(err) {
		return true, fmt.Errorf("%s, seed %d, %s: %w", v.name, seed, f, err)
	}
	// The next process finds what this one left.
	k := w.rec.Len()
	disks := w.rec.ProcessDeath(k)
	b := breadth{goOn: 1, fill: 1}
	if f.kind == disktest.Flush {
		w.model.forget(k)
	}
	if err := w.recovered(disks, w.model.at(k, true), w.model.at(k, false), "afterwards; ", b, b); err != nil {
		return true, fmt.Errorf("%s, seed %d, %s: %w", v.name, seed, f, err)
	}
	return true, nil
}

func TestEveryVerbBearsEveryFailingRequest(t *testing.T) {
	t.Parallel()
	step := int64(13)
	switch {
	case *everyFault:
		step = 1
	case testing.Short():
		step = 61
	}
	var counts crashCounts
	t.Run("all", func(t *testing.T) {
		for i, v := range verbs {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				for k, kind := range []disktest.Kind{disktest.Read, disktest.Write, disktest.Flush, disktest.Delete} {
					for e, err := range []error{syscall.EIO, disktest.Partial{Done: 2048, Err: syscall.ENOSPC}, disktest.Completed(syscall.EIO), syscall.ENXIO} {
						for nth := 1 + int64(i+k+e)%step; ; nth += step {
							met, err := verbFaultRun(v, uint64(i), verbFault{kind, nth, err, e == 3}, &counts)
							if err != nil {
								t.Fatal(err)
							}
							if !met {
								break
							}
						}
					}
				}
			})
		}
	})
	t.Logf("%d faults injected in verbs", counts.faults.Load())
}
