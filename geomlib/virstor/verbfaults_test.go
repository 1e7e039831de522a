package virstor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// trouble is what goes wrong with the disks.
type trouble struct {
	kind   disktest.Kind
	nth    int64 // request of that kind, to whichever disk
	err    error
	sticky bool
	gone   bool // rather, the disk of that request vanishes
}

func (f trouble) String() string {
	switch {
	case f.gone:
		return fmt.Sprintf("disk vanishes at %s %d", f.kind, f.nth)
	case f.sticky:
		return fmt.Sprintf("%ss from %d on fail with %v (%T)", f.kind, f.nth, f.err, f.err)
	}
	return fmt.Sprintf("%s %d fails with %v (%T)", f.kind, f.nth, f.err, f.err)
}

// begin lets f happen. met says afterwards whether it did; end ends it.
func (f trouble) begin(disks []*disktest.Disk) (met func() bool, end func()) {
	var mu sync.Mutex
	var seen int64
	var undo []func()
	for _, d := range disks {
		undo = append(undo, d.Inject(func(o disktest.Op) error {
			if o.Kind != f.kind {
				return nil
			}
			mu.Lock()
			seen++
			hit := seen == f.nth || f.sticky && seen > f.nth
			mu.Unlock()
			switch {
			case !hit:
				return nil
			case f.gone:
				d.Gone()
				return syscall.ENXIO
			}
			return f.err
		}))
	}
	met = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return seen >= f.nth
	}
	return met, func() {
		for i, d := range disks {
			undo[i]()
			d.Back()
		}
	}
}

// faultyVerb opens a volume, does a verb and closes it while the disks fail, and
// then without that. It reports whether they did.
func (w *world) faultyVerb(f trouble) (met bool, err error) {
	wasMet, end := f.begin(w.disks)
	over := make(chan error, 1)
	go func() { over <- w.troubledLife() }()
	select {
	case err = <-over:
		end()
	case <-time.After(200 * time.Millisecond):
		// What waits for the disks to work again goes on when they do.
		end()
		err = <-over
	}
	if err != nil {
		return true, err
	}
	if !wasMet() {
		return false, nil
	}
	w.counts.faults.Add(1)
	// Everything acknowledged is there for the next process, and what was flushed
	// also after a loss of power.
	k := w.rec.Len()
	b := breadth{goOn: 1}
	err = w.recovered(w.rec.ProcessDeath(k), w.model.at(k, true), w.model.at(k, false), "closed in trouble; ", b, b)
	if err == nil {
		err = w.recovered(w.rec.State(k, disktest.None), w.model.at(k, false), nil, "power lost after the trouble; ", b, b)
	}
	return true, err
}

// troubledLife does what it can with a volume on failing disks. An error that is
// returned is one that must not be.
func (w *world) troubledLife() error {
	v := w.verb
	if v.offline {
		if v.do(w) != nil || v.destroys {
			return nil
		}
	}
	var err error
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return nil // and was told
	}
	_, _ = w.vol.WaitJob(context.Background())
	w.tryWrites()
	if !v.offline {
		_ = v.do(w) // it may have closed the volume, and opened it again
	}
	w.tryWrites()
	_ = w.flush()
	w.tryWrites()
	if err := w.tryRead(); err != nil {
		return errors.Join(fmt.Errorf("in service: %w", err), w.vol.Close())
	}
	_ = w.vol.Stop()
	return nil
}

func (w *world) tryWrites() { _ = w.someWrites() }

// tryRead reads what can be read. What it gets must be right.
func (w *world) tryRead() error {
	now := w.model.at(w.rec.Len(), true)
	b := make([]byte, unit)
	for vc, units := range now.chunks {
		for i := range int64(len(units)) {
			u := vc*w.chunk/unit + i
			if i%64 != 0 || (u+1)*unit > w.vol.Size() {
				continue
			}
			if _, err := w.vol.ReadAt(b, u*unit); err != nil {
				continue
			}
			if err := now.check(u, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// troubles are what verbs are tried with, for each request in turn.
func troubles(nth int64, all bool) []trouble {
	errs := []error{syscall.EIO, disktest.Partial{Done: 1024, Err: syscall.EIO}, syscall.ENOSPC,
		disktest.Completed(syscall.EIO), syscall.ENXIO}
	var list []trouble
	for i, kind := range []disktest.Kind{disktest.Read, disktest.Write, disktest.Flush, disktest.Delete} {
		for j, err := range errs {
			for _, sticky := range []bool{false, true} {
				if all || (nth+int64(i))%int64(len(errs)) == int64(j) && sticky == (nth/5%2 == 1) {
					list = append(list, trouble{kind: kind, nth: nth, err: err, sticky: sticky})
				}
			}
		}
		if all || nth%4 == int64(i) {
			list = append(list, trouble{kind: kind, nth: nth, gone: true})
		}
	}
	return list
}

// faultyRuns tries a verb with everything that can go wrong, at every nth
// request of each kind, or at each so many, until there are no more.
func faultyRuns(v *verb, seed uint64, step int64, all bool, counts *crashCounts) error {
	w, err := newVerbWorld(v, seed, Config{}, counts)
	if err != nil {
		return fmt.Errorf("%s, seed %d: %w", v.name, seed, err)
	}
	over := make(map[disktest.Kind]bool)
	for nth := 1 + int64(seed)%step; len(over) < 4; nth += step {
		for _, f := range troubles(nth, all) {
			if over[f.kind] {
				continue
			}
			met, err := w.again().faultyVerb(f)
			if err != nil {
				return fmt.Errorf("%s, seed %d: %s: %w", v.name, seed, f, err)
			}
			if !met {
				over[f.kind] = true
			}
		}
		if nth > 2000 {
			return fmt.Errorf("%s: no end of requests", v.name)
		}
	}
	return nil
}

func TestEveryVerbOnFailingDisksLosesNothingAcknowledged(t *testing.T) {
	var counts crashCounts
	step := int64(5)
	if testing.Short() {
		step = 24
	}
	t.Run("all", func(t *testing.T) {
		for i, v := range verbs {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				within(t, 4*time.Minute, v.name, func() {
					if err := faultyRuns(v, uint64(i), step, false, &counts); err != nil {
						t.Error(err)
					}
				})
			})
		}
	})
	t.Log(&counts)
}

// A disk that says it has flushed and has not makes any promise void. That the
// harness says so shows that it looks.
func TestTheHarnessNoticesADiskThatLiesAboutItsFlushes(t *testing.T) {
	for _, name := range []string{"add", "pack", "evacuate of component 0"} {
		v := verbNamed(name)
		var counts crashCounts
		w, err := newVerbWorld(v, 1, Config{}, &counts)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range w.disks {
			d.SetLying(true)
		}
		if err = w.wholeLife(); err == nil {
			err = w.explore(breadth{stride: 1, exact: 8, random: 4, goOn: 1, fill: 1, nest: 1})
		}
		if err == nil {
			t.Errorf("%s: not noticed: %s", name, &counts)
		}
	}
}

func verbNamed(name string) *verb {
	for _, v := range verbs {
		if v.name == name {
			return v
		}
	}
	panic("no verb is named " + name)
}

func TestAComponentThatVanishesAndComesBackIsUsedAgain(t *testing.T) {
	for gone := range 2 {
		disks := []*disktest.Disk{disktest.New("a", 8*crashChunk+512, 512), disktest.New("b", 8*crashChunk+512, 512)}
		labelled(t, 64, disks...)
		events := make(chan Event, 1000)
		v, err := openDisks(Config{Alloc: Spread, WhenFull: Fail, Events: func(e Event) { events <- e }}, disks)
		mustDo(t, err)
		for vc := range int64(4) {
			mustDo(t, <-startWrite(v, vc*crashChunk, uint64(vc+1)).done)
		}
		mustDo(t, v.Flush())
		disks[gone].Gone()
		b := make([]byte, unit)
		for vc := range int64(4) {
			_, err := v.ReadAt(b, vc*crashChunk)
			if on := int(vc % 2); (err != nil) != (on == gone) {
				t.Errorf("component %d gone: read of a chunk on %d: %v", gone, on, err)
			}
		}
		for _, vc := range []int64{10, 11} { // one on each
			if err := <-startWrite(v, vc*crashChunk, 9).done; err == nil && gone == 0 {
				t.Error("allocated without the map")
			}
		}
		if v.Status().Degraded != (gone == 0) {
			t.Errorf("component %d gone: degraded is %v", gone, v.Status().Degraded)
		}
		disks[gone].Back()
		for vc := range int64(4) {
			if _, err := v.ReadAt(b, vc*crashChunk); err != nil || idOf(b) != uint64(vc+1) {
				t.Errorf("component %d is back: chunk %d holds %d, %v", gone, vc, idOf(b), err)
			}
		}
		if err := <-startWrite(v, 12*crashChunk, 12).done; err != nil {
			t.Errorf("component %d is back: a new chunk: %v", gone, err)
		}
		if v.Status().Degraded {
			t.Errorf("component %d is back, and the volume stays degraded", gone)
		}
		_ = v.Close() // of what could not be flushed it says so
		if got := unitAt(t, disks, 12*crashChunk); got != 12 {
			t.Errorf("component %d was gone: %d after a restart", gone, got)
		}
	}
}
