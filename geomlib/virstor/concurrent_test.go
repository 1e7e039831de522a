package virstor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// A flush that began before the map moved ends after one of the new component 0 has
// begun. What it proves is of the old one.
func TestALateFlushOfTheFormerComponent0ProvesNothing(t *testing.T) {
	a, c := disktest.New("a", 16*crashChunk, 512), disktest.New("c", 24*crashChunk, 512)
	labelled(t, 64, a, c)
	v, err := openDisks(Config{}, []*disktest.Disk{a, c})
	mustDo(t, err)
	v.alloc.SetBar(0, alloc.BarLeaving, true)
	v.alloc.ClaimBelow(1, v.component(0).first())
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, <-startWrite(v, crashChunk, 2).done)
	reachedA, releaseA := a.Block(disktest.Flush)
	flushed := make(chan error, 1)
	go func() { flushed <- v.Flush() }()
	<-reachedA
	remove := a.FailRange(disktest.Write, a.MediaSize()-512, 512, syscall.EIO) // it stays as it is
	mustDo(t, (evacuation{v: v}).handZeroOn(&jobHandle{v: v, ctx: context.Background()}, v.component(1)))
	remove()
	if v.component(0).name() != "c" {
		t.Fatal("not handed on")
	}
	mustDo(t, v.component(0).flush())
	was := v.chunks.Load(0).Phys()
	mustDo(t, v.Discard(0, crashChunk))
	reachedC, releaseC := c.Block(disktest.Flush)
	done := make(chan error, 1)
	go func() { done <- v.component(0).flush() }()
	<-reachedC
	releaseA()
	mustDo(t, <-flushed)
	if v.alloc.IsFree(was) || v.freed.pending() == 0 {
		t.Errorf("%v is free while the sector that freed it is in no flush that ended", was)
	}
	if v.ledger().isDurable() {
		t.Error("the map counts as durable")
	}
	releaseC()
	mustDo(t, <-done)
	_ = v.Close()
}

// An evacuation that is given up leaves a component closed whose flush failed.
func TestAnEvacuationThatFailsOpensNothingThatAFailedFlushClosed(t *testing.T) {
	a, b := disktest.New("a", 12*crashChunk, 512), disktest.New("b", 12*crashChunk, 512)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{Alloc: Spread, WhenFull: Fail}, []*disktest.Disk{a, b})
	mustDo(t, err)
	mustDo(t, <-startWrite(v, 0, 1).done)
	mustDo(t, <-startWrite(v, crashChunk, 2).done) // on b
	b.FailNth(disktest.Flush, 1, syscall.EIO)
	for off := int64(2); off < 4; off++ { // one of them on b
		<-startWrite(v, off*crashChunk, 3).done
	}
	remove := b.FailFrom(disktest.Read, 1, syscall.EIO)
	mustDo(t, v.Evacuate([]string{"b"}, "", JobOptions{}))
	if s, _ := v.WaitJob(t.Context()); s.Err == nil {
		t.Fatal("evacuated")
	}
	remove()
	if bars, _ := v.alloc.Bars(1); bars != alloc.BarFailed {
		t.Errorf("bars of b: %b", bars)
	}
	_ = v.Close()
}

// The map cannot be handed on while metadata is in doubt. The chunks that were kept
// free for it are of use again.
func TestAMapThatIsNotHandedOnGivesItsRoomBack(t *testing.T) {
	a, b := disktest.New("a", 12*crashChunk, 512), disktest.New("b", 12*crashChunk, 512)
	labelled(t, 64, a, b)
	v, err := openDisks(Config{}, []*disktest.Disk{a, b})
	mustDo(t, err)
	before := v.Status().Free
	v.metaMu.Lock()
	_ = v.cond.doubt(errors.New("on purpose"))
	v.metaMu.Unlock()
	if err := (evacuation{v: v}).handZeroOn(&jobHandle{v: v, ctx: context.Background()}, v.component(1)); !errors.Is(err, ErrUnfinished) {
		t.Fatal(err)
	}
	_, kept := v.alloc.Bars(1)
	if got := v.Status().Free; got != before || kept > 0 {
		t.Errorf("%d chunks are free, want %d; kept are %d", got, before, kept)
	}
	v.cond.word.Store(0)
	mustDo(t, v.Close())
}

// besides are the public methods of a volume. Errors are fine: panics, races, hangs
// and wrong figures are not.
func besides(v *Volume, spare *disktest.Disk) map[string]func(*rand.Rand) {
	b := func(r *rand.Rand) []byte { return make([]byte, unit*(1+r.IntN(8))) }
	off := func(r *rand.Rand) int64 { return r.Int64N(60*crashChunk/unit) * unit }
	snap := func(r *rand.Rand) string { return []string{"monday", "tuesday"}[r.IntN(2)] }
	anyName := func(r *rand.Rand) string { return []string{"a", "b", "c", "spare"}[r.IntN(4)] }
	return map[string]func(*rand.Rand){
		"read":      func(r *rand.Rand) { _, _ = v.ReadAt(b(r), off(r)) },
		"write":     func(r *rand.Rand) { _, _ = v.WriteAt(b(r), off(r)) },
		"zero":      func(r *rand.Rand) { _ = v.WriteZeroes(off(r), unit, FUA) },
		"discard":   func(r *rand.Rand) { _ = v.Discard(off(r), 2*crashChunk) },
		"flush":     func(*rand.Rand) { _ = v.Flush() },
		"status":    func(*rand.Rand) { consistent(v.Status()) },
		"metadata":  func(*rand.Rand) { _, _ = v.Metadata(), v.Providers() },
		"copy map":  func(*rand.Rand) { _ = v.CopyMap() },
		"snapshot":  func(r *rand.Rand) { _ = v.Snapshot(snap(r)) },
		"delete":    func(r *rand.Rand) { _ = v.DeleteSnapshot(snap(r)) },
		"snapshots": func(r *rand.Rand) { _ = v.Snapshots(); _, _ = v.MayDeleteSnapshot(snap(r)) },
		"view": func(r *rand.Rand) {
			w, err := v.OpenSnapshot(snap(r))
			if err != nil {
				return
			}
			_, _ = w.ReadAt(b(r), off(r))
			w.Extents(0, w.Size(), func(int64, bool) bool { return true })
			w.Close()
		},
		"extents":     func(*rand.Rand) { v.Extents(0, v.Size(), func(int64, bool) bool { return true }) },
		"job":         func(*rand.Rand) { _, _ = v.Job(); _ = v.JobTotals() },
		"cancel":      func(*rand.Rand) { _ = v.CancelJob() },
		"add":         func(*rand.Rand) { _ = v.Add([]geomlib.Provider{spare}, AddOptions{}) },
		"remove":      func(r *rand.Rand) { _ = v.Remove(anyName(r)) },
		"evacuate":    func(r *rand.Rand) { _ = v.Evacuate([]string{anyName(r)}, "", JobOptions{}) },
		"replace":     func(r *rand.Rand) { _ = v.Replace(anyName(r), spare, false, JobOptions{}) },
		"may replace": func(r *rand.Rand) { _, _ = v.MayReplace(anyName(r), 24*crashChunk) },
		"dry replace": func(r *rand.Rand) { _ = v.DryReplace(anyName(r), 24*crashChunk) },
		"pack":        func(*rand.Rand) { _ = v.Pack(JobOptions{}) },
		"rebalance":   func(*rand.Rand) { _ = v.Rebalance(JobOptions{}) },
		"reclaim":     func(*rand.Rand) { _ = v.Reclaim(JobOptions{}) },
		"resize":      func(r *rand.Rand) { _ = v.Resize((64+64*r.Int64N(2))*crashChunk, r.IntN(2) == 0, JobOptions{}) },
		"fail held":   func(*rand.Rand) { v.FailHeld() },
		"activate":    func(*rand.Rand) { _ = v.Activate(nil) },
		"identity":    func(*rand.Rand) { _, _, _, _ = v.Name(), v.ID(), v.ReadOnly(), v.Deferred() },
		"sizes":       func(*rand.Rand) { _, _, _ = v.Size(), v.SectorSize(), v.ChunkSize() },
		"set reserve": func(r *rand.Rand) { v.SetReserve(r.Int64N(3)) },
		"figures":     func(*rand.Rand) { _, _, _ = v.CommitSizes(), v.OpStats(OpWrite), v.HeldFull() },
		"limits":      func(*rand.Rand) { v.SetHeldLimit(1 << 20) },
		"when full":   func(*rand.Rand) { v.SetFull(Fail, 0) },
		"wait":        func(r *rand.Rand) { waitABit(v) },
	}
}

// waitABit waits for the job that runs, unless that is told to go on for long.
func waitABit(v *Volume) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = v.WaitJob(ctx)
}

// consistent panics when figures contradict each other.
func consistent(s Status) {
	seen := make(map[string]bool)
	var free int64
	for _, c := range s.Components {
		if seen[c.Name] || c.Used+c.Free != c.Usable {
			panic(fmt.Sprintf("figures of %s: %+v", c.Name, s.Components))
		}
		seen[c.Name] = true
		free += int64(c.Free)
	}
	if free != s.Free {
		panic(fmt.Sprintf("%d chunks are free, and %d on the components", s.Free, free))
	}
}

func TestAnyMethodMayRunBesideAnyOther(t *testing.T) {
	rounds, times := 8, 60
	if testing.Short() {
		rounds, times = 2, 25
	}
	for seed := range uint64(rounds) {
		var disks []*disktest.Disk
		for _, name := range []string{"a", "b", "c"} {
			disks = append(disks, disktest.New(name, 24*crashChunk, 512).SetBuffered(seed%2 == 0).SetCached(seed%4 == 0).SetStarts(true))
		}
		labelled(t, 64, disks...)
		v, err := openDisks(Config{WhenFull: Fail, Workers: 4, Alloc: AllocOrder(seed % 2)}, disks)
		mustDo(t, err)
		spare := disktest.New("spare", 24*crashChunk, 512)
		within(t, 5*60e9, "any method beside any other", func() {
			var wg sync.WaitGroup
			for name, do := range besides(v, spare) {
				r := rand.New(rand.NewPCG(seed, uint64(len(name))))
				wg.Go(func() {
					for range times {
						do(r)
					}
				})
			}
			wg.Wait()
		})
		_ = v.CancelJob()
		consistent(v.Status())
		ps := v.Providers()
		mustDo(t, v.Close())
		var left []*disktest.Disk
		for _, p := range ps {
			left = append(left, p.(*disktest.Disk))
		}
		again, err := openDisks(Config{}, left)
		mustDo(t, err)
		mustDo(t, again.Close())
	}
}
