package virstor

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// jobEnds waits for a job that was started, and that is to end well.
func jobEnds(t *testing.T, v *Volume, err error) JobStatus {
	t.Helper()
	mustDo(t, err)
	s, err := v.WaitJob(context.Background())
	mustDo(t, errors.Join(err, s.Err))
	return s
}

// nothingIsLeft gives up all that a volume without others holds: every chunk is free then.
func nothingIsLeft(t *testing.T, v *Volume) {
	t.Helper()
	mustDo(t, v.Discard(0, v.Size()))
	mustDo(t, v.Flush())
	mustDo(t, v.waitFreed())
	for _, c := range v.components() {
		if n := v.chunksOn(c); n > 0 {
			t.Errorf("%d chunks of %s are nobody's and not free", n, c.name())
		}
	}
}

// family is a volume with snapshots that have chunks in common with it and each other.
type family struct {
	v     *Volume
	cfg   Config
	disks []*disktest.Disk
	now   []byte            // what the volume holds
	then  map[string][]byte // what the snapshots do
	alone map[string]int64  // how many chunks each has alone
}

// newFamily makes three snapshots of a volume, among changes.
func newFamily(t *testing.T, cfg Config) *family {
	t.Helper()
	cfg.Alloc = Spread
	return newFamilyOf(t, 90, 1, cfg)
}

// newFamilyOf is newFamily on disks of so many chunks, with the changes of a seed.
func newFamilyOf(t *testing.T, chunks int64, seed int, cfg Config) *family {
	t.Helper()
	f := &family{cfg: cfg, disks: []*disktest.Disk{
		disktest.New("a", chunks*crashChunk, 512).FillJunk(1), disktest.New("b", chunks*crashChunk+4096, 512).FillJunk(2),
	}, then: make(map[string][]byte), alone: make(map[string]int64)}
	f.cfg.WhenFull = Fail
	labelled(t, 40, f.disks...)
	var err error
	f.v, err = openDisks(f.cfg, f.disks)
	mustDo(t, err)
	f.now = make([]byte, f.v.Size())
	rng := rand.New(rand.NewPCG(uint64(seed), 11))
	for _, name := range []string{"one", "two", "three"} {
		change(t, f.v, rng, f.now, 6)
		mustDo(t, f.v.Snapshot(name))
		f.then[name] = bytes.Clone(f.now)
	}
	change(t, f.v, rng, f.now, 4)
	mustDo(t, f.v.Flush())
	for name := range f.then {
		f.alone[name], err = f.v.MayDeleteSnapshot(name)
		mustDo(t, err)
	}
	return f
}

// mustHold fails the test unless all hold what they did, by the same chunks in common.
func (f *family) mustHold(t *testing.T) {
	t.Helper()
	f.volumeHolds(t)
	for name, b := range f.then {
		snapshotHolds(t, f.v, name, b)
		alone, err := f.v.MayDeleteSnapshot(name)
		mustDo(t, err)
		if alone != f.alone[name] {
			t.Errorf("%s has %d chunks alone, and had %d", name, alone, f.alone[name])
		}
	}
}

// volumeHolds fails the test unless the volume holds what it did.
func (f *family) volumeHolds(t *testing.T) {
	t.Helper()
	got := make([]byte, len(f.now))
	_, err := f.v.ReadAt(got, 0)
	mustDo(t, err)
	if i := differsAt(got, f.now); i >= 0 {
		t.Errorf("the volume differs from byte %d on, of chunk %d", i, i/crashChunk)
	}
}

// write writes a sector.
func (f *family) write(t *testing.T, off int64, with byte) {
	t.Helper()
	b := bytes.Repeat([]byte{with}, 512)
	_, err := f.v.WriteAt(b, off)
	mustDo(t, err)
	copy(f.now[off:], b)
}

// reopen closes the volume, and opens it from the disks alone, which are then as they say.
func (f *family) reopen(t *testing.T) {
	t.Helper()
	mustDo(t, f.v.Close())
	_, err := rawOwners(f.disks)
	mustDo(t, err)
	f.v, err = openDisks(f.cfg, f.disks)
	mustDo(t, err)
}

func (f *family) components() string { return namesOf(f.v) }

// familyJobs are what moves chunks, and which components there are then.
var familyJobs = []struct {
	name  string
	do    func(f *family) error
	comps string
}{
	{"replace of component 0", func(f *family) error { return f.v.Replace("a", f.disks[2], false, JobOptions{}) }, "c b"},
	{"replace of another", func(f *family) error { return f.v.Replace("b", f.disks[2], false, JobOptions{}) }, "a c"},
	{"evacuation of component 0", func(f *family) error { return f.v.Evacuate([]string{"a"}, "", JobOptions{}) }, "b"},
	{"evacuation of the last", func(f *family) error { return f.v.Evacuate([]string{"b"}, "", JobOptions{}) }, "a"},
	{"evacuation of one in the midst", func(f *family) error {
		if err := f.v.Add([]geomlib.Provider{f.disks[2]}, AddOptions{}); err != nil {
			return err
		}
		rng := rand.New(rand.NewPCG(2, 11))
		for range 4 { // which go to the new one, too
			vc := rng.Int64N(40)
			if _, err := f.v.WriteAt(bytes.Repeat([]byte{9}, crashChunk), vc*crashChunk); err != nil {
				return err
			}
			copy(f.now[vc*crashChunk:], bytes.Repeat([]byte{9}, crashChunk))
		}
		if err := f.v.Snapshot("four"); err != nil {
			return err
		}
		f.then["four"] = bytes.Clone(f.now)
		for name := range f.then {
			f.alone[name], _ = f.v.MayDeleteSnapshot(name)
		}
		return f.v.Evacuate([]string{"b"}, "", JobOptions{})
	}, "a c"},
	{"pack", func(f *family) error { return f.v.Pack(JobOptions{}) }, "a b"},
	{"rebalance", func(f *family) error {
		if err := f.v.Add([]geomlib.Provider{f.disks[2]}, AddOptions{}); err != nil {
			return err
		}
		return f.v.Rebalance(JobOptions{})
	}, "a b c"},
	{"growing", func(f *family) error { return f.v.Resize(17000*crashChunk, false, JobOptions{}) }, "a b"},
}

// What snapshots and the volume have in common they have in common where it is moved to.
func TestChunksThatSnapshotsNameAreMoved(t *testing.T) {
	for _, serial := range []bool{true, false} {
		for _, job := range familyJobs {
			t.Run(job.name, func(t *testing.T) {
				f := newFamily(t, Config{serial: serial})
				f.disks = append(f.disks, disktest.New("c", 120*crashChunk, 512).FillJunk(3))
				s := jobEnds(t, f.v, job.do(f))
				if got := f.components(); got != job.comps {
					t.Errorf("the components are %s", got)
				}
				if s.Moved == 0 {
					t.Error("nothing was moved")
				}
				f.mustHold(t)
				rng := rand.New(rand.NewPCG(3, 11))
				for range 8 { // nothing that a snapshot names is written to
					f.write(t, rng.Int64N(40)*crashChunk+rng.Int64N(64)*512, byte(rng.Uint32()))
				}
				for name, b := range f.then {
					snapshotHolds(t, f.v, name, b)
				}
				f.reopen(t)
				for name, b := range f.then {
					snapshotHolds(t, f.v, name, b)
				}
				for name := range f.then {
					mustDo(t, f.v.DeleteSnapshot(name))
				}
				f.volumeHolds(t)
				nothingIsLeft(t, f.v)
				mustDo(t, f.v.Stop())
			})
		}
	}
}

// A component that changes its index is the same for snapshots as for the volume.
func TestASnapshotKeepsItsChunksWhenTheirComponentIsRenumbered(t *testing.T) {
	renumber := func(cfg Config) (differs int) {
		cfg.serial = true
		f := newFamily(t, cfg)
		f.disks = append(f.disks, disktest.New("c", 120*crashChunk, 512))
		mustDo(t, f.v.Add([]geomlib.Provider{f.disks[2]}, AddOptions{}))
		jobEnds(t, f.v, f.v.Evacuate([]string{"a"}, "c", JobOptions{}))
		for vc := range int64(40) {
			_, err := f.v.WriteAt(bytes.Repeat([]byte{0xee}, 512), vc*crashChunk)
			mustDo(t, err)
		}
		w, err := f.v.OpenSnapshot("three")
		mustDo(t, err)
		defer w.Close()
		got := make([]byte, w.Size())
		_, err = w.ReadAt(got, 0)
		mustDo(t, err)
		return differsAt(got, f.then["three"])
	}
	if i := renumber(Config{}); i >= 0 {
		t.Errorf("the snapshot differs from byte %d on", i)
	}
	if renumber(Config{breakRule: breakOneIndex}) < 0 {
		t.Error("nobody noticed that snapshots know one index only")
	}
}

// What was copied while the last snapshot that named it went is not believed: the volume
// may have written to it since.
func TestAChunkWhoseSnapshotGoesWhileItIsCopiedStays(t *testing.T) {
	v, _, want := withSnapshot(t, Config{})
	defer v.Close()
	all := v.placesWhere(v.onAny(v.components()))
	m := v.newMover(&jobHandle{v: v, ctx: t.Context()}, v.onAny(nil))
	free := v.Status().Free
	for _, pl := range all[:4] {
		to, ok := v.alloc.TakeFirst()
		if !ok {
			t.Fatal("no chunk")
		}
		if moved, err := m.move(pl, to); !moved || err != nil {
			t.Fatal(moved, err)
		}
	}
	mustDo(t, v.DeleteSnapshot("monday"))
	_, err := v.WriteAt(bytes.Repeat([]byte{1}, crashChunk), 0)
	mustDo(t, err)
	copy(want, bytes.Repeat([]byte{1}, crashChunk))
	mustDo(t, m.settle())
	if i := differsAt(volumeHolds(t, v), want); i >= 0 {
		t.Errorf("the volume differs from byte %d on", i)
	}
	for _, pl := range all {
		if v.chunks.Load(pl.vc).Mapping() != chunkmap.WordOf(pl.at) {
			t.Errorf("chunk %d is moved", pl.vc)
		}
	}
	mustDo(t, v.waitFreed())
	if now := v.Status().Free; now < free {
		t.Errorf("%d chunks are free, of %d before", now, free)
	}
}

// Snapshots are read, and the volume is written, while all of it moves to other disks.
func TestSnapshotsAreReadWhileTheirChunksMove(t *testing.T) {
	f := newFamily(t, Config{})
	var spares []*disktest.Disk
	for _, name := range []string{"c", "d"} {
		spares = append(spares, disktest.New(name, 100*crashChunk, 512).FillJunk(5))
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	for name, want := range f.then {
		w, err := f.v.OpenSnapshot(name)
		mustDo(t, err)
		all.Go(func() {
			defer w.Close()
			got := make([]byte, w.Size())
			for !stop.Load() {
				_, err := w.ReadAt(got, 0)
				if i := differsAt(got, want); err != nil || i >= 0 {
					t.Errorf("%s differs from byte %d on, %v", name, i, err)
					return
				}
			}
		})
	}
	all.Go(func() {
		rng := rand.New(rand.NewPCG(5, 11))
		for !stop.Load() {
			off, b := rng.Int64N(40)*crashChunk+rng.Int64N(8)*512, bytes.Repeat([]byte{byte(rng.Uint32())}, 512)
			if _, err := f.v.WriteAt(b, off); err != nil {
				t.Error(err)
				return
			}
			copy(f.now[off:], b)
		}
	})
	for i, name := range []string{"a", "b"} {
		s, err := replacedBy(f, name, spares[i])
		if err != nil || s.Err != nil {
			t.Errorf("replace %s: %v, %v", name, err, s.Err)
		}
	}
	stop.Store(true)
	all.Wait()
	f.disks = spares
	f.reopen(t)
	defer f.v.Close()
	for name, b := range f.then {
		snapshotHolds(t, f.v, name, b)
	}
	f.volumeHolds(t)
}

// replacedBy is how the replacement of a component by a disk ends.
func replacedBy(f *family, name string, by *disktest.Disk) (JobStatus, error) {
	if err := f.v.Replace(name, by, false, JobOptions{}); err != nil {
		return JobStatus{}, err
	}
	return f.v.WaitJob(context.Background())
}

func TestAFailingDiskIsReplacedUnderSnapshots(t *testing.T) {
	f := newFamily(t, Config{})
	f.disks[1].Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Write {
			return errors.New("no writes any more")
		}
		return nil
	})
	by := disktest.New("c", 100*crashChunk, 512)
	jobEnds(t, f.v, f.v.Replace("b", by, false, JobOptions{}))
	f.mustHold(t)
	f.disks[1] = by
	f.reopen(t)
	f.mustHold(t)
	mustDo(t, f.v.Close())
}

// A disk of the size of the one that fails takes all that is there, when nothing is free.
func TestADiskOfTheSameSizeTakesAllOfAFullOne(t *testing.T) {
	disks := []*disktest.Disk{disktest.New("a", 60*crashChunk, 512)}
	labelled(t, 64, disks...)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	fillUnits(t, v, 12)
	mustDo(t, v.Snapshot("monday"))
	fillUnits(t, v, 6)
	mustDo(t, v.Snapshot("tuesday"))
	want := volumeHolds(t, v)
	for vc := int64(12); vc < 64; vc++ {
		if _, err = v.WriteAt(bytes.Repeat([]byte{7}, 512), vc*crashChunk); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("not full: %v", err)
	}
	by := disktest.New("b", 60*crashChunk, 512)
	jobEnds(t, v, v.Replace("a", by, false, JobOptions{}))
	mustDo(t, v.Close())
	v, err = openDisks(Config{WhenFull: Fail}, []*disktest.Disk{by})
	mustDo(t, err)
	snapshotHolds(t, v, "tuesday", want)
	mustDo(t, v.DeleteSnapshot("monday"))
	mustDo(t, v.Close())
}

func TestReclaimTellsWhatComesBackOnlyWithSnapshots(t *testing.T) {
	v, _, _ := withSnapshot(t, Config{})
	defer v.Close()
	_, err := v.WriteAt(make([]byte, 3*crashChunk), 0) // copies, and zeros
	mustDo(t, err)
	_, err = v.WriteAt(make([]byte, crashChunk), 20*crashChunk)
	mustDo(t, err)
	mustDo(t, v.Snapshot("tuesday"))
	_, err = v.WriteAt(make([]byte, crashChunk), 21*crashChunk)
	mustDo(t, err)
	s := jobEnds(t, v, v.Reclaim(JobOptions{}))
	if want := "1 chunks, 131072 bytes, came back; 4 more are given up"; s.Moved != 1 || !strings.HasPrefix(s.Result, want) {
		t.Errorf("%d: %s", s.Moved, s.Result)
	}
	free := v.Status().Free
	mustDo(t, v.DeleteSnapshot("tuesday"))
	mustDo(t, v.Flush())
	mustDo(t, v.waitFreed())
	if now := v.Status().Free; now < free+4 {
		t.Errorf("%d chunks are free, of %d", now, free)
	}
}

func TestAVolumeIsNotMadeSmallerThanItsSnapshots(t *testing.T) {
	v, _, want := withSnapshot(t, Config{})
	size := v.Size()
	jobEnds(t, v, v.Resize(2*size, false, JobOptions{}))
	mustDo(t, v.Snapshot("large"))
	if err := v.Resize(size, false, JobOptions{}); !errors.Is(err, ErrLargerSnapshots) || !strings.Contains(err.Error(), "(large)") {
		t.Error(err)
	}
	mustDo(t, v.DeleteSnapshot("large"))
	jobEnds(t, v, v.Resize(size, false, JobOptions{}))
	snapshotHolds(t, v, "monday", want)
	mustDo(t, v.Close())
}

// Of a damaged snapshot nobody knows which chunks it names: nothing moves until it is gone.
func TestNothingMovesWhileASnapshotIsDamaged(t *testing.T) {
	v, disks, _ := withSnapshot(t, Config{})
	disk, off := mapChunk(t, v)
	mustDo(t, v.Close())
	spoilMap(t, disks[disk], off)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	for name, try := range map[string]func() error{
		"evacuate":  func() error { return v.Evacuate([]string{"b"}, "", JobOptions{}) },
		"pack":      func() error { return v.Pack(JobOptions{}) },
		"rebalance": func() error { return v.Rebalance(JobOptions{}) },
		"reclaim":   func() error { return v.Reclaim(JobOptions{}) },
		"remove":    func() error { return v.Remove("b") },
		"replace":   func() error { return v.Replace("b", disktest.New("c", 80*crashChunk, 512), false, JobOptions{}) },
	} {
		if err := try(); !errors.Is(err, ErrSnapshotDamaged) || !strings.Contains(err.Error(), "(monday)") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(v.Status().Components); n != 2 {
		t.Errorf("%d components are left", n)
	}
	mustDo(t, v.DeleteSnapshot("monday"))
	jobEnds(t, v, v.Evacuate([]string{"b"}, "", JobOptions{}))
	mustDo(t, v.Close())
}

// A component 0 that takes no writes leaves snapshots as it leaves the volume: at an opening,
// and in service.
func TestComponent0LeavesSnapshotsUnwritten(t *testing.T) {
	for _, before := range []bool{true, false} {
		for name, leave := range map[string]func(f *family, by *disktest.Disk) error{
			"replaced":  func(f *family, by *disktest.Disk) error { return f.v.Replace("a", by, false, JobOptions{}) },
			"evacuated": func(f *family, _ *disktest.Disk) error { return f.v.Evacuate([]string{"a"}, "", JobOptions{}) },
		} {
			for seed := range 3 {
				f := newFamilyOf(t, 180, seed, Config{ServeStranded: true, Alloc: AllocOrder(seed % 2)})
				refuse := func() {
					f.disks[0].Inject(func(o disktest.Op) error {
						if o.Kind == disktest.Write {
							return errors.New("no writes any more")
						}
						return nil
					})
				}
				if before {
					mustDo(t, f.v.Close())
					refuse()
					var err error
					f.v, err = openDisks(f.cfg, f.disks)
					mustDo(t, err)
				} else {
					refuse()
				}
				by := disktest.New("c", 180*crashChunk, 512)
				err := leave(f, by)
				var s JobStatus
				if err == nil {
					s, err = f.v.WaitJob(t.Context())
				}
				if err = errors.Join(err, s.Err); err != nil {
					if seed%2 == 1 && name == "evacuated" && errors.Is(err, ErrTakesNoWrites) && strings.Contains(err.Error(), "gvirstor replace") {
						_ = f.v.Close() // data is where the map would be
						continue
					}
					t.Fatalf("%s, before: %t: %v", name, before, err)
				}
				f.mustHold(t)
				f.disks = f.disks[1:]
				if name == "replaced" {
					f.disks = append(f.disks, by)
				}
				f.write(t, 0, 0xab)
				f.reopen(t)
				f.volumeHolds(t)
				for name, b := range f.then {
					snapshotHolds(t, f.v, name, b)
					mustDo(t, f.v.DeleteSnapshot(name))
				}
				nothingIsLeft(t, f.v)
				mustDo(t, f.v.Close())
			}
		}
	}
}

func TestEachRuleOfMovingWhatSnapshotsNameIsNeeded(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"what a snapshot names does not move as the volume's alone":        {breakRule: breakMovedAlone},
		"the directory does not name who leaves":                           {breakRule: breakLeaverNumbered},
		"a copy is flushed before maps name it":                            {breakRule: breakCopyFlush},
		"the old place is free only when the record is durable":            {breakRule: breakMovedEarly},
		"maps that name the new place are written before the directory":    {breakRule: breakDirectoryFirst},
		"the directory that names those maps is written before the record": {breakRule: breakRecordFirst},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var counts crashCounts
			for seed := range uint64(12) {
				if err := snapRun(seed, poolWay{jobs: true}, 30, 5, cfg, &counts); err != nil {
					t.Logf("after %d states: %v", counts.states.Load(), err)
					return
				}
			}
			t.Errorf("nobody noticed in %d states", counts.states.Load())
		})
	}
}

func TestAStepOfAMoveThatFailsLosesNothing(t *testing.T) {
	for n := 1; ; n++ {
		f := newFamily(t, Config{serial: true})
		by := disktest.New("c", 120*crashChunk, 512)
		disks := append(slices.Clone(f.disks), by)
		seen, failed := 0, false
		var undo []func()
		for _, d := range disks {
			undo = append(undo, d.Inject(func(o disktest.Op) error {
				if o.Kind != disktest.Write && o.Kind != disktest.Flush {
					return nil
				}
				if seen++; seen == 7*n {
					failed = true
					return errors.New("once")
				}
				return nil
			}))
		}
		s, err := replacedBy(f, "a", by)
		for _, u := range undo {
			u()
		}
		if !failed {
			mustDo(t, errors.Join(err, s.Err))
			mustDo(t, f.v.Close())
			return
		}
		for name, b := range f.then {
			snapshotHolds(t, f.v, name, b)
		}
		_ = f.v.Close() // which tells of the flush that failed
		f.v, err = openDisks(f.cfg, disks)
		if err != nil { // of a flush that failed, once
			f.v, err = openDisks(f.cfg, disks)
		}
		if err != nil {
			t.Fatalf("request %d failed (%v, %v): %v", 7*n, err, s.Err, err)
		}
		if s, err := f.v.WaitJob(context.Background()); err != nil || s.Err != nil {
			t.Errorf("request %d failed: the job goes on with %v", 7*n, s.Err)
		}
		for name, b := range f.then {
			snapshotHolds(t, f.v, name, b)
		}
		if i := differsAt(volumeHolds(t, f.v), f.now); i >= 0 {
			t.Errorf("request %d failed: the volume differs from byte %d on", 7*n, i)
		}
		mustDo(t, f.v.Close())
	}
}

// Power that is lost while component 0 leaves without a write to it loses no snapshot.
func TestPowerLossWhileComponent0LeavesSnapshotsUnwrittenIsSurvived(t *testing.T) {
	t.Parallel()
	f := newFamilyOf(t, 180, 1, Config{ServeStranded: true, serial: true})
	mustDo(t, f.v.Close())
	disks := append(clones(f.disks), disktest.New("c", 180*crashChunk, 512).FillJunk(3))
	rec := disktest.Record(disks...)
	disks[0].Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Write {
			return errors.New("no writes any more")
		}
		return nil
	})
	var err error
	f.v, err = openDisks(f.cfg, disks)
	mustDo(t, err)
	jobEnds(t, f.v, f.v.Replace("a", disks[2], false, JobOptions{}))
	f.mustHold(t)
	mustDo(t, f.v.Close())
	states, left := 0, 0
	rng := rand.New(rand.NewPCG(4, 9))
	for l := range rec.PowerLosses(disktest.Prefix, 3, rng) {
		states++
		if states%3 > 0 {
			continue
		}
		f.v, err = openDisks(f.cfg, rec.State(l.At, l.Pick))
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		if s, err := f.v.WaitJob(t.Context()); err != nil || s.Err != nil {
			t.Fatalf("%s: a job that goes on: %v, %v", l, err, s.Err)
		}
		f.volumeHolds(t)
		for name, b := range f.then {
			snapshotHolds(t, f.v, name, b)
		}
		if f.components() != "a b" {
			left++
		}
		if err := f.v.Close(); err != nil || t.Failed() {
			t.Fatalf("%s: %v", l, err)
		}
	}
	if left == 0 || left == states/3 {
		t.Errorf("%d of %d states are of after it", left, states/3)
	}
}
