package virstor

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// A disk that says it has flushed and has not makes any promise void. That the
// harness says so shows that it looks.
func TestTheHarnessNoticesADiskThatLiesAboutItsFlushes(t *testing.T) {
	t.Parallel()
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
