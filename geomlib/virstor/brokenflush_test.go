package virstor

import (
	"slices"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// heldFlush is a volume on one disk whose flush is held in the device, after unit 0
// was written and flushed.
type heldFlush struct {
	disk    *disktest.Disk
	rec     *disktest.Recorder
	v       *Volume
	release func()
	flushed chan error
}

func holdFlush(t *testing.T, broken rule) *heldFlush {
	t.Helper()
	h := &heldFlush{disk: disktest.New("a", 16*crashChunk, 512), flushed: make(chan error, 1)}
	labelled(t, 64, h.disk)
	h.rec = disktest.Record(h.disk)
	var err error
	h.v, err = openDisks(Config{breakRule: broken}, []*disktest.Disk{h.disk})
	mustDo(t, err)
	mustDo(t, <-startWrite(h.v, 0, 1).done)
	mustDo(t, h.v.Flush())
	mustDo(t, <-startWrite(h.v, 0, 2).done)
	reached, release := h.disk.Block(disktest.Flush)
	h.release = release
	go func() { h.flushed <- h.v.Flush() }()
	<-reached
	return h
}

// survives is what unit 0 holds for certain after a loss of power now.
func (h *heldFlush) survives(t *testing.T) uint64 {
	t.Helper()
	return unitAt(t, h.rec.State(h.rec.Len(), func(int, []disktest.Op) []disktest.Part { return nil }), 0)
}

func TestAChunkThatIsFreedDuringAFlushIsNotCoveredByIt(t *testing.T) {
	freeAfter := func(broken rule) bool {
		h := holdFlush(t, broken)
		was := h.v.chunks.Load(0).Phys()
		mustDo(t, h.v.Discard(0, crashChunk))
		h.release()
		mustDo(t, <-h.flushed)
		h.v.freed.wait()
		free := h.v.alloc.IsFree(was)
		_ = h.v.Close()
		return free
	}
	if freeAfter(0) {
		t.Error("free, though no flush has made the sector durable that freed it")
	}
	if !freeAfter(breakFreedCovered) {
		t.Error("the broken rule is not noticed")
	}
}

func TestAFlushCoversWhatWasWrittenWhileAnotherRan(t *testing.T) {
	lost := func(broken rule, together bool) bool {
		h := holdFlush(t, broken)
		mustDo(t, <-startWrite(h.v, 0, 3).done)
		second := make(chan error, 1)
		if together {
			begun := make(chan struct{})
			go func() {
				close(begun)
				second <- h.v.Flush()
			}()
			<-begun
		}
		h.release()
		mustDo(t, <-h.flushed)
		if !together {
			second <- h.v.Flush()
		}
		mustDo(t, <-second)
		got := h.survives(t)
		_ = h.v.Close()
		return got != 3
	}
	for range 20 {
		if lost(0, true) || lost(0, false) {
			t.Fatal("a write that a flush should cover is gone")
		}
	}
	if !lost(breakLateClean, false) {
		t.Error("a dirty mark that is cleared too late is not noticed")
	}
	// Whether the second flush comes while the first runs is the scheduler's choice.
	for range 1000 {
		if lost(breakFlushJoins, true) {
			return
		}
	}
	t.Error("a flush that joins the running one is not noticed")
}

func TestAZeroingAheadThatIsInterruptedCountsForNothing(t *testing.T) {
	stale := func(broken rule) bool {
		a := disktest.New("a", 16*crashChunk, 512).FillJunk(1)
		labelled(t, 64, a)
		v, err := openDisks(Config{breakRule: broken}, []*disktest.Disk{a})
		mustDo(t, err)
		v.cfg.ZeroAhead = 4
		mustDo(t, <-startWrite(v, 0, 1).done)
		z := newZeroAhead(v)
		l, _ := v.traffic.enter(new(Request), OpRead) // somebody is in its way
		z.one()
		v.traffic.leave(l)
		mustDo(t, <-startWrite(v, crashChunk, 2).done)
		b := make([]byte, unit)
		_, err = v.ReadAt(b, crashChunk+8*unit)
		mustDo(t, err)
		_ = v.Close()
		return !isZero(b)
	}
	if stale(0) {
		t.Error("a new chunk holds what was there before")
	}
	if !stale(breakAheadWhole) {
		t.Error("the broken rule is not noticed")
	}
}

// Two components leave; the process dies when the first has left and the last one has
// its index. The second leaves at the next start, and no other.
func TestATaskNamesTheRightComponentsWhenOneHasLeft(t *testing.T) {
	remaining := func(broken rule) []string {
		var disks, left []*disktest.Disk
		for _, name := range []string{"a", "b", "c", "d"} {
			disks = append(disks, disktest.New(name, 16*crashChunk, 512))
		}
		labelled(t, 64, disks...)
		var once sync.Once
		events := func(e Event) {
			if e.Kind == EventComponents {
				once.Do(func() {
					for _, d := range disks {
						left = append(left, d.Survivor())
					}
				})
			}
		}
		v, err := openDisks(Config{breakRule: broken, Events: events}, disks)
		mustDo(t, err)
		mustDo(t, v.Evacuate([]string{"b", "c"}, "", JobOptions{}))
		if s, _ := v.WaitJob(t.Context()); broken == 0 {
			mustDo(t, s.Err)
		}
		_ = v.Close()
		after, err := openDisks(Config{breakRule: broken}, left)
		mustDo(t, err)
		if s, _ := after.WaitJob(t.Context()); broken == 0 {
			mustDo(t, s.Err)
		}
		var names []string
		for _, p := range after.Providers() {
			names = append(names, p.Name())
		}
		mustDo(t, after.Close())
		return names
	}
	if got := remaining(0); !slices.Equal(got, []string{"a", "d"}) {
		t.Errorf("left are %q", got)
	}
	if got := remaining(breakTaskNumbers); slices.Equal(got, []string{"a", "d"}) {
		t.Error("the broken rule is not noticed")
	}
}
