package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// toBeRolledBack is a volume that is closed and has two snapshots, "then" and "between". It
// was written to since in both sectors of the map, and some of it was given up. What is
// done from now on is recorded.
func toBeRolledBack(t *testing.T, seed uint64, cfg Config) *snapWorld {
	t.Helper()
	w, err := newSnapWorld(seed, poolWay{}, cfg)
	mustDo(t, err)
	snapshot := func(name string) {
		mustDo(t, w.vol.Flush())
		w.flushed()
		w.at.snaps[name] = w.now
		mustDo(t, w.vol.Snapshot(name))
	}
	write := func(from, to int64, stamp byte) {
		for i := from; i < to; i++ {
			b := bytes.Repeat([]byte{stamp}, crashChunk)
			mustDo(t, w.set(cellsIn(chunkAt(i), crashChunk), stamp, func() error { _, err := w.vol.WriteAt(b, chunkAt(i)); return err }))
		}
	}
	write(2, snapChunks-3, 1)
	snapshot("then")
	write(5, 9, 2)
	snapshot("between")
	write(0, 6, 3)
	mustDo(t, w.set(cellsIn(chunkAt(8), 2*crashChunk), 0, func() error { return w.vol.Discard(chunkAt(8), 2*crashChunk) }))
	mustDo(t, w.vol.Flush())
	w.flushed()
	mustDo(t, w.vol.Close())
	w.disks = clones(w.disks)
	w.rec, w.moments = disktest.Record(w.disks...), nil
	w.note()
	return w
}

// crashedRollback rolls back to "then", and tries every crash of it.
func crashedRollback(t *testing.T, cfg Config, counts *crashCounts) error {
	t.Helper()
	for seed := range uint64(2) {
		w := toBeRolledBack(t, seed, cfg)
		err := w.rollbackTo("then")
		if err == nil {
			err = w.explore(256, counts)
		}
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

func TestARollbackIsDoneWholeOrNotAtAll(t *testing.T) {
	var counts crashCounts
	if err := crashedRollback(t, Config{}, &counts); err != nil {
		t.Error(err)
	}
	t.Logf("%d states", counts.states.Load())
}

func TestEachRuleOfARollbackIsNeeded(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]rule{
		"it begins with the record of it":          breakRollbackFirst,
		"it is done when the map is flushed":       breakRollbackFlush,
		"who does not write finishes it in memory": breakRollbackRead,
		"that it is done is noted":                 breakRollbackKept,
	} {
		t.Run(name, func(t *testing.T) {
			var counts crashCounts
			err := crashedRollback(t, Config{breakRule: rule}, &counts)
			if err == nil {
				err = tornAfterRollback(t, Config{breakRule: rule})
			}
			if err == nil {
				t.Errorf("nobody noticed in %d states", counts.states.Load())
			}
			t.Logf("after %d states: %v", counts.states.Load(), err)
		})
	}
}

// tornAfterRollback tells what is wrong with a volume that was rolled back when one of its
// records is torn, in either slot: what is written from now on would be lost.
func tornAfterRollback(t *testing.T, cfg Config) error {
	t.Helper()
	for slot := range int64(2) {
		w := toBeRolledBack(t, 0, cfg)
		mustDo(t, w.rollbackTo("then"))
		m, err := assembleDisks(w.disks)
		mustDo(t, err)
		off := m.ext.offset + slot*ondisk.ExtensionSlotSize
		_, err = w.disks[0].WriteAt(bytes.Repeat([]byte{0xee}, 512), off)
		mustDo(t, err)
		rec, _, err := Record(w.disks[0], m.Members[0].Metadata)
		mustDo(t, err)
		if rec.Intent.Kind != ondisk.IntentNone {
			return fmt.Errorf("slot %d: %v", slot, rec.Intent.Kind)
		}
	}
	return nil
}

func TestARollbackIsNotDoneAgainWhenARecordIsTorn(t *testing.T) {
	if err := tornAfterRollback(t, Config{}); err != nil {
		t.Error(err)
	}
}

// Opening finishes a rollback, and that is interrupted in its turn.
func TestWhatFinishesARollbackMayBeInterruptedToo(t *testing.T) {
	w := toBeRolledBack(t, 1, Config{})
	mustDo(t, w.rollbackTo("then"))
	rng := rand.New(rand.NewPCG(3, 4))
	states := 0
	for k := 0; k < w.rec.Len(); k += 2 {
		m, left := w.moment(k), w.rec.State(k, disktest.Random(rng))
		again := disktest.Record(left...)
		v, err := openDisks(w.cfg, left)
		mustDo(t, err)
		mustDo(t, v.Close())
		for j := range again.Len() {
			states++
			if err := m.recovered(again.State(j, disktest.Random(rng)), false, w.cfg); err != nil {
				t.Fatalf("interrupted at %d, and again at %d: %v", k, j, err)
			}
		}
	}
	t.Logf("%d states", states)
}

// Whatever request of a rollback fails, the volume is what it was or what it is to be, and
// that when it says so.
func TestARollbackThatFailsLeavesAllOrNothing(t *testing.T) {
	w := toBeRolledBack(t, 1, Config{})
	then := w.at.snaps["then"]
	failed := 0
	for _, kind := range []disktest.Kind{disktest.Write, disktest.Flush} {
		for disk := range w.disks {
			for n := int64(1); ; n++ {
				disks := clones(w.disks)
				disks[disk].FailNth(kind, n, syscall.EIO)
				err := rollBack(disks, "then", w.cfg)
				hit := disks[disk].Count(kind) >= n
				disks[disk].Heal()
				m := w.moments[0]
				m.or = &then
				if err == nil {
					for c := range m.cells {
						m.cells[c] = []byte{then[c]}
					}
				}
				if e := m.recovered(disks, n%4 == 0, w.cfg); e != nil {
					t.Fatalf("%v %d of disk %d failed (%v): %v", kind, n, disk, err, e)
				}
				if !hit {
					break
				}
				if err != nil {
					failed++
				}
			}
		}
	}
	if failed < 4 {
		t.Errorf("%d rollbacks failed", failed)
	}
}

// From whatever write of a rollback on component 0 takes none: who opens the volume reads
// what it was or what it is to be, as the next opening for writing finds it.
func TestAVolumeIsReadWhenComponent0TakesNoWritesAmidARollback(t *testing.T) {
	w := toBeRolledBack(t, 1, Config{})
	then := w.at.snaps["then"]
	amid := 0
	for n := int64(1); ; n++ {
		disks := clones(w.disks)
		disks[0].FailFrom(disktest.Write, n, syscall.EIO)
		err := rollBack(disks, "then", w.cfg)
		if disks[0].Count(disktest.Write) < n {
			mustDo(t, err)
			break
		}
		a, err := assembleDisks(disks)
		mustDo(t, err)
		m := w.moments[0]
		if a.ext.rec.Intent.Kind == ondisk.IntentRollback {
			m.or, m.cells = &then, stamps{}
			amid++
		} else {
			m.or = &then
		}
		v, err := openDisks(Config{ServeStranded: true}, disks)
		if err != nil {
			t.Errorf("write %d: %v", n, err)
			continue
		}
		if err := m.mustBe(v); err != nil || !v.Stranded() {
			t.Errorf("write %d: stranded %v, %v", n, v.Stranded(), err)
		}
		if _, err := v.MayRollback("between"); !errors.Is(err, ErrStranded) {
			t.Errorf("write %d: another rollback: %v", n, err)
		}
		if a.ext.rec.Intent.Kind == ondisk.IntentRollback {
			mustDo(t, v.Evacuate([]string{"d0"}, "", JobOptions{}))
			if s, err := v.WaitJob(t.Context()); !errors.Is(errors.Join(err, s.Err), ErrUnfinished) {
				t.Errorf("write %d: component 0 leaves: %+v, %v", n, s, err)
			}
		}
		mustDo(t, v.Close())
		disks[0].Heal()
		mustDo(t, m.recovered(disks, n%2 == 0, w.cfg))
	}
	if amid < 2 {
		t.Errorf("%d writes were amid it", amid)
	}
}

func TestARollbackGivesBackWhatTheSnapshotHolds(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 8))
		disks := snapshotDisks(t)
		cfg := Config{WhenFull: Fail, Alloc: AllocOrder(seed % 2)}
		v, err := openDisks(cfg, disks)
		mustDo(t, err)
		now := make([]byte, v.Size())
		held := make(map[string][]byte)
		for i, name := range []string{"a", "b"} {
			change(t, v, rng, now, 4+i)
			mustDo(t, v.Snapshot(name))
			held[name] = bytes.Clone(now)
		}
		change(t, v, rng, now, 3)
		for _, to := range []string{"a", "b", "a"} {
			mustDo(t, v.Close())
			mustDo(t, rollBack(disks, to, Config{}))
			v, err = openDisks(cfg, disks)
			mustDo(t, err)
			if i := differsAt(volumeHolds(t, v), held[to]); i >= 0 {
				t.Fatalf("seed %d: rolled back to %s it differs from byte %d on", seed, to, i)
			}
			now = bytes.Clone(held[to])
			change(t, v, rng, now, 2)
			if i := differsAt(volumeHolds(t, v), now); i >= 0 {
				t.Fatalf("seed %d: written to since %s it differs from byte %d on", seed, to, i)
			}
			for name, b := range held {
				snapshotHolds(t, v, name, b)
			}
		}
		mustDo(t, v.DeleteSnapshot("a"))
		mustDo(t, v.DeleteSnapshot("b"))
		if i := differsAt(volumeHolds(t, v), now); i >= 0 {
			t.Fatalf("seed %d: without snapshots it differs from byte %d on", seed, i)
		}
		mustDo(t, v.Close())
	}
}

// What the volume held alone is free once it is rolled back.
func TestWhatARollbackTakesBackIsFree(t *testing.T) {
	v, disks, _ := withSnapshot(t, Config{WhenFull: Fail})
	free := v.Status().Free
	before, err := v.MayRollback("monday")
	mustDo(t, err)
	size := v.Size()
	for off := size / 2; off < size/2+3*crashChunk; off += crashChunk {
		_, err := v.WriteAt(bytes.Repeat([]byte{9}, crashChunk), off)
		mustDo(t, err)
	}
	c, err := v.MayRollback("monday")
	mustDo(t, err)
	if c.Chunks-before.Chunks > 3 || c.Alone-before.Alone != free-v.Status().Free {
		t.Errorf("%+v, %+v before, %d chunks of %d are free", c, before, v.Status().Free, free)
	}
	used := v.Status().Free
	mustDo(t, v.Close())
	mustDo(t, rollBack(disks, "monday", Config{}))
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	if got := v.Status().Free; got != used+c.Alone {
		t.Errorf("%d chunks are free, %d were, and the volume had %d alone", got, used, c.Alone)
	}
	if c, err := v.MayRollback("monday"); err != nil || c != (Loss{}) {
		t.Errorf("%+v, %v", c, err)
	}
	if held, now := v.Status().SnapshotChunks, v.Status(); held != now.PhysicalChunks-now.Free-now.Allocated || held < reserveChunks {
		t.Errorf("snapshots hold %d chunks: %+v", held, now)
	}
	mustDo(t, v.DeleteSnapshot("monday"))
	if held := v.Status().SnapshotChunks; held != 0 {
		t.Errorf("no snapshots hold %d chunks", held)
	}
	mustDo(t, v.Close())
}

func TestARollbackThatCannotBeIsRefusedAndLosesNothing(t *testing.T) {
	w := toBeRolledBack(t, 0, Config{})
	for _, c := range []struct {
		name  string
		force bool
		want  error
	}{
		{"never", true, ErrNoSnapshot},
		{"then", false, ErrWouldLose},
	} {
		a, err := assembleDisks(w.disks)
		mustDo(t, err)
		if err := Rollback(a, c.name, c.force, slog.New(slog.DiscardHandler)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		mustDo(t, w.moments[0].recovered(w.disks, false, w.cfg))
	}
	a, err := assembleDisks(w.disks)
	mustDo(t, err)
	mustDo(t, Rollback(a, "then", true, slog.New(slog.DiscardHandler)))
	a, err = assembleDisks(w.disks)
	mustDo(t, err)
	mustDo(t, Rollback(a, "then", false, slog.New(slog.DiscardHandler))) // nothing would be lost
}

// grow makes a volume that nobody serves larger, within the room for its map.
func grow(t *testing.T, disks []*disktest.Disk, size int64) {
	t.Helper()
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		mustDo(t, err)
		if m.No == 0 {
			_, err := d.WriteAt(make([]byte, (size-int64(m.VirtualSize))/crashChunk*ondisk.EntrySize), m.MapBytes())
			mustDo(t, err)
		}
		m.VirtualSize = uint64(size)
		mustDo(t, geomlib.StoreMetadata(d, m))
	}
}

// The size is that of then, unless a snapshot has more.
func TestARollbackGivesBackTheSize(t *testing.T) {
	disks := snapshotDisks(t)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	small := v.Size()
	mustDo(t, v.Snapshot("small"))
	mustDo(t, v.Close())
	grow(t, disks, small+64*crashChunk)
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	if v.Size() != small+64*crashChunk {
		t.Fatalf("%d bytes", v.Size())
	}
	_, err = v.WriteAt([]byte{1}, small+5)
	mustDo(t, err)
	mustDo(t, v.Snapshot("large"))
	if _, err := v.MayRollback("small"); !errors.Is(err, ErrLargerSnapshots) || !strings.Contains(err.Error(), "(large)") {
		t.Errorf("%v", err)
	}
	mustDo(t, v.DeleteSnapshot("large"))
	if c, err := v.MayRollback("small"); err != nil || c != (Loss{Chunks: 1, Alone: 1, Grown: 64 * crashChunk}) {
		t.Errorf("%+v, %v", c, err)
	}
	mustDo(t, v.Close())
	rec := disktest.Record(disks...)
	mustDo(t, rollBack(disks, "small", Config{serial: true}))
	rng := rand.New(rand.NewPCG(5, 6))
	for k := range rec.Len() + 1 {
		v, err := openDisks(Config{}, rec.State(k, disktest.Random(rng)))
		mustDo(t, err)
		if s := v.Snapshots(); v.Size() != small && v.Size() != small+64*crashChunk || s[0].Err != nil || k == rec.Len() && v.Size() != small {
			t.Errorf("at %d: %d bytes, %+v", k, v.Size(), s)
		}
		mustDo(t, v.Close())
	}
}
