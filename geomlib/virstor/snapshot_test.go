package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// snapshotDisks are those of a volume of 64 chunks that has room for snapshots.
func snapshotDisks(t *testing.T) []*disktest.Disk {
	t.Helper()
	disks := []*disktest.Disk{disktest.New("a", 80*crashChunk, 512), disktest.New("b", 60*crashChunk+4096, 512)}
	for i, d := range disks {
		d.FillJunk(uint64(i))
	}
	labelled(t, 64, disks...)
	return disks
}

// snapshotHolds fails the test unless the snapshot called name holds want.
func snapshotHolds(t *testing.T, v *Volume, name string, want []byte) {
	t.Helper()
	w, err := v.OpenSnapshot(name)
	mustDo(t, err)
	defer w.Close()
	got := make([]byte, w.Size())
	_, err = w.ReadAt(got, 0)
	mustDo(t, err)
	if i := differsAt(got, want); i >= 0 {
		t.Fatalf("%s differs from byte %d on, of chunk %d", name, i, i/crashChunk)
	}
}

func differsAt(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

func volumeHolds(t *testing.T, v *Volume) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	_, err := v.ReadAt(b, 0)
	mustDo(t, err)
	return b
}

// change does n requests to the volume, and to b.
func change(t *testing.T, v *Volume, rng *rand.Rand, b []byte, n int) {
	t.Helper()
	for range n {
		off := rng.Int64N(v.Size() - 1)
		length := 1 + rng.Int64N(min(v.Size()-off, 2*crashChunk+1000))
		if rng.IntN(2) == 0 { // whole sectors
			off, length = off&^511, (length+511)&^511
			length = min(length, v.Size()-off)
		}
		data := bytes.Repeat([]byte{byte(rng.Uint32())}, int(length))
		switch rng.IntN(6) {
		case 0:
			mustDo(t, v.WriteZeroes(off, length, Flags(rng.IntN(2))*NoHole))
			clear(b[off : off+length])
		case 1: // of whole chunks, so that it is known what they hold
			off = off / crashChunk * crashChunk
			length = min(2*crashChunk, v.Size()-off)
			mustDo(t, v.Discard(off, length))
			clear(b[off : off+length])
		default:
			_, err := v.WriteAt(data, off)
			mustDo(t, err)
			copy(b[off:], data)
		}
	}
}

func TestASnapshotHoldsWhatTheVolumeDid(t *testing.T) {
	for _, serial := range []bool{true, false} {
		for seed := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, 7))
			disks := snapshotDisks(t)
			open := func() *Volume {
				v, err := openDisks(Config{serial: serial, WhenFull: Fail, Alloc: AllocOrder(seed % 2)}, disks)
				mustDo(t, err)
				return v
			}
			v := open()
			free := v.Status().Free
			now := make([]byte, v.Size())
			want := make(map[string][]byte)
			for step := range 12 {
				change(t, v, rng, now, 5)
				name := string(rune('a' + step))
				switch err := v.Snapshot(name); {
				case errors.Is(err, ErrNoSpace): // which it needs for what was overwritten
				case err != nil:
					t.Fatal(err)
				default:
					want[name] = bytes.Clone(now)
				}
				for gone := range want {
					if rng.IntN(3) == 0 {
						mustDo(t, v.DeleteSnapshot(gone))
						delete(want, gone)
					}
				}
				if rng.IntN(3) == 0 {
					mustDo(t, v.Close())
					v = open()
				}
				if i := differsAt(volumeHolds(t, v), now); i >= 0 {
					t.Fatalf("seed %d: the volume differs from byte %d on", seed, i)
				}
				for name, b := range want {
					snapshotHolds(t, v, name, b)
				}
			}
			for name := range want {
				mustDo(t, v.DeleteSnapshot(name))
			}
			mustDo(t, v.Discard(0, v.Size()))
			mustDo(t, v.Close())
			v = open()
			if now := v.Status().Free; now != free {
				t.Errorf("seed %d: %d chunks are free, of %d", seed, now, free)
			}
			mustDo(t, v.Stop())
		}
	}
}

// withSnapshot is a volume with data in its first chunks, and a snapshot of it.
func withSnapshot(t *testing.T, cfg Config) (v *Volume, disks []*disktest.Disk, want []byte) {
	t.Helper()
	disks = snapshotDisks(t)
	cfg.WhenFull = Fail
	v, err := openDisks(cfg, disks)
	mustDo(t, err)
	for vc := range int64(8) { // as fillUnits, in a serial volume too
		b := make([]byte, unit)
		fill(b, 100+uint64(vc))
		_, err := v.WriteAt(b, vc*crashChunk)
		mustDo(t, err)
	}
	want = volumeHolds(t, v)
	mustDo(t, v.Snapshot("monday"))
	return v, disks, want
}

func TestASnapshotOfAnImpossibleNameIsRefused(t *testing.T) {
	v, _, want := withSnapshot(t, Config{})
	defer v.Close()
	for name, why := range map[string]error{
		"": ondisk.ErrMapName, "a@b": ondisk.ErrMapName, "a/b": ondisk.ErrMapName, "monday": ErrSnapshotExists,
	} {
		if err := v.Snapshot(name); !errors.Is(err, why) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := v.DeleteSnapshot("tuesday"); !errors.Is(err, ErrNoSnapshot) {
		t.Error(err)
	}
	if _, err := v.OpenSnapshot("tuesday"); !errors.Is(err, ErrNoSnapshot) {
		t.Error(err)
	}
	snapshotHolds(t, v, "monday", want)
}

func TestASnapshotThatIsReadIsNotDeleted(t *testing.T) {
	v, _, want := withSnapshot(t, Config{})
	w, err := v.OpenSnapshot("monday")
	mustDo(t, err)
	if err := v.DeleteSnapshot("monday"); !errors.Is(err, ErrSnapshotInUse) {
		t.Error(err)
	}
	if _, err := w.ReadAt(make([]byte, 100), w.Size()-10); !errors.Is(err, ErrRange) {
		t.Errorf("behind its end: %v", err)
	}
	for _, op := range []Op{OpWrite, OpDelete, OpWriteZeroes} {
		q := newToldRequest(op, 0, make([]byte, 512))
		w.Submit(&q.r)
		if <-q.done; !errors.Is(q.r.Err, ErrReadOnly) {
			t.Errorf("%s: %v", op, q.r.Err)
		}
	}
	q := newToldRequest(OpRead, 100, make([]byte, 3*crashChunk)) // by a worker
	w.Submit(&q.r)
	if <-q.done; q.r.Err != nil || !bytes.Equal(q.r.Data, want[100:100+3*crashChunk]) {
		t.Errorf("a worker reads something else: %v", q.r.Err)
	}
	w.Close()
	mustDo(t, v.DeleteSnapshot("monday"))
	if _, err = v.OpenSnapshot("monday"); !errors.Is(err, ErrNoSnapshot) {
		t.Error(err)
	}
	mustDo(t, v.Snapshot("tuesday"))
	w, err = v.OpenSnapshot("tuesday")
	mustDo(t, err)
	mustDo(t, v.Close())
	if _, err := w.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed volume: %v", err)
	}
	if err := v.Snapshot("wednesday"); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed volume: %v", err)
	}
	if err := v.DeleteSnapshot("tuesday"); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed volume: %v", err)
	}
}

func TestWhatIsInACacheIsReadFromASnapshotAtOnce(t *testing.T) {
	v, disks, want := withSnapshot(t, Config{})
	defer v.Close()
	w, err := v.OpenSnapshot("monday")
	mustDo(t, err)
	defer w.Close()
	read := func(off int64) bool {
		q := newToldRequest(OpRead, off, make([]byte, 4096))
		q.r.Flags = 0
		w.Submit(&q.r)
		now := false
		select {
		case <-q.done:
			now = true
		default:
			<-q.done
		}
		if q.r.Err != nil || !bytes.Equal(q.r.Data, want[off:off+4096]) {
			t.Errorf("at %d: %v", off, q.r.Err)
		}
		return now
	}
	for _, d := range disks {
		d.SetCached(true)
	}
	if !read(4096) || !read(20*crashChunk) {
		t.Error("a worker read what needs no wait")
	}
	for _, d := range disks {
		d.SetCached(false)
	}
	read(4096)
	read(100)
}

// What was known by the id of a map, such as its device, is not taken for another's.
func TestNoIdOfAMapIsGivenAgainByTheNextPool(t *testing.T) {
	disks := snapshotDisks(t)
	var last uint64
	for range 3 {
		v := open(t, Config{}, disks...)
		for _, name := range []string{"a", "b", "c"} {
			mustDo(t, v.Snapshot(name))
		}
		for _, s := range v.Snapshots() {
			if s.ID <= last {
				t.Errorf("%s has the id %d, and %d was given before", s.Name, s.ID, last)
			}
			last = max(last, s.ID)
			mustDo(t, v.DeleteSnapshot(s.Name))
		}
		mustDo(t, v.Close())
	}
}

func TestAnExtentOfASnapshotIsWhatWasAllocatedThen(t *testing.T) {
	v, _, _ := withSnapshot(t, Config{})
	defer v.Close()
	mustDo(t, v.Discard(0, 4*crashChunk))
	_, err := v.WriteAt([]byte{1}, 20*crashChunk)
	mustDo(t, err)
	w, err := v.OpenSnapshot("monday")
	mustDo(t, err)
	defer w.Close()
	var got []int64
	w.Extents(crashChunk, 11*crashChunk, func(n int64, allocated bool) bool {
		if !allocated {
			n = -n
		}
		got = append(got, n/crashChunk)
		return true
	})
	if !slices.Equal(got, []int64{7, -4}) {
		t.Errorf("%v", got)
	}
}

func TestAJobThatRunsKeepsASnapshotFromBeingTaken(t *testing.T) {
	disks := snapshotDisks(t)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	defer v.Close()
	fillUnits(t, v, 8)
	reached, open := disks[1].BlockWhen(func(o disktest.Op) bool { return o.Kind == disktest.Write && o.Off < 50*crashChunk })
	mustDo(t, v.Evacuate([]string{"a"}, "b", JobOptions{}))
	<-reached
	if err := v.Snapshot("now"); !errors.Is(err, ErrJobRunning) {
		t.Error(err)
	}
	open()
}

// mapChunk is where on which disk the map of the only snapshot lies.
func mapChunk(t *testing.T, v *Volume) (disk int, off int64) {
	t.Helper()
	s := v.pool.snaps[0].stored.chunks()
	p := s[len(s)-1]
	return int(p.Comp), int64(p.Chunk) * crashChunk
}

// spoilMap changes a byte in a sector: a map entry names another chunk.
func spoilMap(t *testing.T, d *disktest.Disk, off int64) {
	t.Helper()
	b := make([]byte, 512)
	_, err := d.ReadAt(b, off)
	mustDo(t, err)
	b[4] ^= 0x20 // one that nobody has
	_, err = d.WriteAt(b, off)
	mustDo(t, err)
}

// damagedSnapshot opens a volume whose snapshot has a changed byte in its map, and tells
// what is wrong with what it does then.
func damagedSnapshot(t *testing.T, cfg Config) error {
	v, disks, want := withSnapshot(t, Config{})
	disk, off := mapChunk(t, v)
	mustDo(t, v.Close())
	spoilMap(t, disks[disk], off)
	cfg.WhenFull = Fail
	v, err := openDisks(cfg, disks)
	if err != nil {
		return err
	}
	defer func() { mustDo(t, v.Close()) }()
	if _, err := v.OpenSnapshot("monday"); !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("the snapshot is opened: %w", err)
	}
	if s := v.Snapshots(); len(s) != 1 || s[0].Err == nil {
		return fmt.Errorf("%+v", s)
	}
	holdsUnits(t, v, 8)
	for vc, what := range map[int64]string{0: "overwritten", 30: "given out"} {
		if err := <-startWrite(v, vc*crashChunk, 7).done; !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("a chunk is %s: %w", what, err)
		}
	}
	if err := v.Snapshot("tuesday"); !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("another is taken: %w", err)
	}
	// What the volume gives up the snapshot may have: when it can be read again it is whole.
	mustDo(t, v.Discard(0, 4*crashChunk))
	mustDo(t, v.Flush())
	mustDo(t, v.Close())
	spoilMap(t, disks[disk], off)
	v, err = openDisks(cfg, disks)
	mustDo(t, err)
	snapshotHolds(t, v, "monday", want)
	mustDo(t, v.Close())
	spoilMap(t, disks[disk], off)
	v, err = openDisks(cfg, disks)
	mustDo(t, err)
	if err := v.DeleteSnapshot("monday"); err != nil {
		return err
	}
	mustDo(t, <-startWrite(v, 4*crashChunk, 7).done)
	return <-startWrite(v, 30*crashChunk, 7).done
}

func TestADamagedSnapshotIsNotBelievedAndKeepsChunksFromBeingGivenOut(t *testing.T) {
	if err := damagedSnapshot(t, Config{}); err != nil {
		t.Error(err)
	}
	if err := damagedSnapshot(t, Config{breakRule: breakMapSums}); err == nil {
		t.Error("nobody noticed that checksums are not looked at")
	} else {
		t.Log(err)
	}
}

// A list of a map that names what is not the map's gives nothing up when it is deleted.
func TestADamagedSnapshotHasNoChunkOfOthers(t *testing.T) {
	for name, change := range map[string]func(l *ondisk.MapList, data ondisk.Address, own ondisk.Address){
		"for its map": func(l *ondisk.MapList, data, _ ondisk.Address) { l.Chunks[0].Address = data },
		"twice":       func(l *ondisk.MapList, _, own ondisk.Address) { l.Chunks[0].Address = own },
	} {
		v, disks, _ := withSnapshot(t, Config{})
		d, s := v.nextDirectory(false), v.pool.snaps[0]
		list := &ondisk.MapList{Map: s.ID, Chunks: []ondisk.MapChunk{{Sum: 1}}}
		change(list, d.numbers.address(v.chunks.Load(2).Phys()), d.numbers.address(s.stored.list[0]))
		contents, err := list.Encode()
		mustDo(t, err)
		at := s.stored.list
		first, chunks, err := ondisk.EncodeChain(ondisk.ChainMapList, contents, d.numbers.places(at), crashChunk)
		mustDo(t, err)
		mustDo(t, v.storeChain(chunks, at))
		d.Maps[1].List = first
		mustDo(t, v.planDirectory(d))
		mustDo(t, v.storeChain(d.chunks, d.own))
		mustDo(t, v.putInForceLocked(d.link))
		mustDo(t, v.Close())
		v, err = openDisks(Config{WhenFull: Fail}, disks)
		mustDo(t, err)
		if s := v.Snapshots(); len(s) != 1 || !errors.Is(s[0].Err, ErrDamaged) {
			t.Errorf("%s: %+v", name, s)
		}
		mustDo(t, v.DeleteSnapshot("monday"))
		for range v.Status().Free { // none of the volume's
			_, err := v.WriteAt(bytes.Repeat([]byte{0xff}, crashChunk), 8*crashChunk)
			mustDo(t, err)
			mustDo(t, v.Discard(8*crashChunk, crashChunk))
			mustDo(t, v.Flush())
		}
		holdsUnits(t, v, 8)
		mustDo(t, v.Stop())
	}
}

func TestAMapThatNamesWhatAnotherUseHasIsDamaged(t *testing.T) {
	v, disks, _ := withSnapshot(t, Config{})
	free := v.Status().Free
	disk, off := mapChunk(t, v)
	system := v.pool.dir.Own[0]
	mustDo(t, v.Close())
	b := make([]byte, 512)
	_, err := disks[disk].ReadAt(b, off)
	mustDo(t, err)
	for vc := range uint64(40) { // what nobody has, and at last the directory
		e := ondisk.Entry{Flags: ondisk.FlagAllocated, Component: 0, Chunk: uint32(40 + vc)}
		if vc == 39 {
			e = ondisk.Entry{Flags: ondisk.FlagAllocated, Component: system.Number, Chunk: system.Chunk}
		}
		e.Encode(b[vc*ondisk.EntrySize:], ondisk.LittleEndian)
	}
	_, err = disks[disk].WriteAt(b, off)
	mustDo(t, err)
	v, err = openDisks(Config{serial: true, WhenFull: Fail, breakRule: breakMapSums}, disks) // as if it had the checksum
	mustDo(t, err)
	if s := v.Snapshots(); len(s) != 1 || s[0].Err == nil || !strings.Contains(s[0].Err.Error(), "virtual chunk 39") {
		t.Errorf("%+v", s)
	}
	mustDo(t, v.DeleteSnapshot("monday"))
	mustDo(t, v.Flush())
	if now := v.Status().Free; now <= free {
		t.Errorf("%d chunks are free, of %d before", now, free)
	}
	holdsUnits(t, v, 8)
	mustDo(t, v.Stop())
}

// tornRecord tells what is wrong with a volume of which a record was torn, in either slot
// of the extension block: the other is to name the directory of now, and not one whose
// chunks others have.
func tornRecord(t *testing.T, cfg Config) error {
	t.Helper()
	for slot := range int64(2) {
		v, disks, _ := withSnapshot(t, Config{breakRule: cfg.breakRule, serial: true})
		mustDo(t, v.Snapshot("tuesday"))
		mustDo(t, v.DeleteSnapshot("monday"))
		mustDo(t, v.Flush())
		off := v.meta.ext.offset + slot*ondisk.ExtensionSlotSize
		var crashed []*disktest.Disk
		for _, d := range disks {
			crashed = append(crashed, d.Clone())
		}
		mustDo(t, v.Close())
		_, err := crashed[0].WriteAt(bytes.Repeat([]byte{0xee}, 512), off)
		mustDo(t, err)
		v, err = openDisks(Config{}, crashed)
		if err != nil {
			return err
		}
		s := v.Snapshots()
		mustDo(t, v.Close())
		if len(s) != 1 || s[0].Name != "tuesday" || s[0].Err != nil {
			return fmt.Errorf("slot %d: %+v", slot, s)
		}
	}
	return nil
}

func TestADirectoryIsInForceByBothSlots(t *testing.T) {
	if err := tornRecord(t, Config{}); err != nil {
		t.Error(err)
	}
	if err := tornRecord(t, Config{breakRule: breakOneRecord}); err == nil {
		t.Error("nobody noticed that one slot names another directory")
	} else {
		t.Log(err)
	}
}

// A directory that grows although it names less, since components have joined, finds room
// in a full pool.
func TestADeleteInAFullPoolTakesFromTheReserve(t *testing.T) {
	v, disks, want := withSnapshot(t, Config{})
	mustDo(t, v.Snapshot("tuesday"))
	if _, ok := v.alloc.Take(nil, int(v.Status().Free), true); !ok {
		t.Fatal("no chunk is left to take")
	}
	d := v.pool.dir
	d.Reserve, d.Own, d.Other = append(slices.Concat(d.Reserve, d.Own), d.Other...), nil, nil
	reserve := len(d.Reserve)
	mustDo(t, v.DeleteSnapshot("tuesday"))
	if n := len(v.pool.dir.Reserve); n != reserve-2 {
		t.Errorf("%d chunks are left of %d", n, reserve)
	}
	mustDo(t, v.Close())
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	snapshotHolds(t, v, "monday", want)
	mustDo(t, v.DeleteSnapshot("monday"))
	mustDo(t, v.Discard(0, v.Size()))
	mustDo(t, v.Stop())
}

func TestAVolumeWhoseDirectoryIsDamagedIsRefused(t *testing.T) {
	v, disks, _ := withSnapshot(t, Config{})
	own := v.pool.dir.Own[0]
	mustDo(t, v.Close())
	_, err := disks[own.Number].WriteAt(make([]byte, 512), int64(own.Chunk)*crashChunk)
	mustDo(t, err)
	if _, err := openDisks(Config{}, disks); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func TestAPoolThatHoldsWhatNobodyServesIsRefused(t *testing.T) {
	for name, change := range map[string]func(*ondisk.Directory){
		"a quota of the volume itself": func(d *ondisk.Directory) { d.Maps[0].Quota = 1 << 30 },
	} {
		v, disks, _ := withSnapshot(t, Config{})
		change(v.pool.dir)
		d := v.nextDirectory(false)
		mustDo(t, v.planDirectory(d))
		mustDo(t, v.storeChain(d.chunks, d.own))
		mustDo(t, v.putInForceLocked(d.link))
		mustDo(t, v.Close())
		if _, err := openDisks(Config{}, disks); !errors.Is(err, ErrUnserved) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever request fails while a snapshot is taken or deleted, the volume and its
// snapshots are what they were, or are that and the new one; nothing is lost of the room
// there is.
func TestASnapshotThatFailsLeavesNothing(t *testing.T) {
	for _, del := range []bool{false, true} {
		for nth := int64(1); ; nth++ {
			v, disks, want := withSnapshot(t, Config{serial: true})
			_, err := v.WriteAt(bytes.Repeat([]byte{9}, 4096), 0)
			mustDo(t, err)
			mustDo(t, v.Flush())
			now, free := volumeHolds(t, v), v.Status().Free
			var count atomic.Int64
			failed := false
			for _, d := range disks {
				d.Inject(func(op disktest.Op) error {
					if op.Kind == disktest.Write && count.Add(1) == nth {
						failed = true
						return syscall.EIO
					}
					return nil
				})
			}
			name := "tuesday"
			if del {
				name, err = "monday", v.DeleteSnapshot("monday")
			} else {
				err = v.Snapshot(name)
			}
			for _, d := range disks {
				d.Heal()
			}
			if !failed {
				mustDo(t, err)
				mustDo(t, v.Close())
				break
			}
			if v.pool.doubt != nil {
				if err == nil {
					t.Errorf("request %d: nobody was told that it is in doubt", nth)
				}
				if err := v.Snapshot("later"); !errors.Is(err, ErrUnfinished) {
					t.Errorf("request %d: while nobody knows which directory is in force: %v", nth, err)
				}
			} else if err != nil && v.Status().Free != free {
				t.Errorf("request %d: %d chunks are free, of %d", nth, v.Status().Free, free)
			}
			if i := differsAt(volumeHolds(t, v), now); i >= 0 {
				t.Fatalf("request %d: the volume differs from byte %d on", nth, i)
			}
			mustDo(t, v.Close())
			v, err = openDisks(Config{serial: true}, disks)
			mustDo(t, err)
			for _, s := range v.Snapshots() {
				if s.Name == "monday" {
					snapshotHolds(t, v, "monday", want)
				} else {
					snapshotHolds(t, v, "tuesday", now)
				}
			}
			if n := len(v.Snapshots()); n > 2 || !del && n == 0 {
				t.Errorf("request %d: %d snapshots", nth, n)
			}
			mustDo(t, v.Close())
		}
	}
}

// What is written while snapshots are taken is in one or it is not: of two writes, the
// second begun when the first was done, none has the second alone.
func TestASnapshotIsAPointBetweenWrites(t *testing.T) {
	disks := snapshotDisks(t)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	defer v.Close()
	const sites = 4
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for site := range int64(sites) {
		writers.Go(func() {
			for n := byte(1); ; n++ {
				for _, vc := range []int64{site, 10 + site} {
					if _, err := v.WriteAt(bytes.Repeat([]byte{n}, 2*512), vc*crashChunk+512); err != nil {
						t.Error(err)
						return
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	defer writers.Wait()
	defer close(stop)
	for range 30 {
		mustDo(t, v.Snapshot("now"))
		w, err := v.OpenSnapshot("now")
		mustDo(t, err)
		first, second := make([]byte, 1024), make([]byte, 1024)
		for range 2 {
			for site := range int64(sites) {
				_, err := w.ReadAt(first, site*crashChunk+512)
				mustDo(t, err)
				_, err = w.ReadAt(second, (10+site)*crashChunk+512)
				mustDo(t, err)
				if a, b := first[0], second[0]; a != b && a != b+1 || first[1023] != a || second[1023] != b {
					t.Errorf("site %d: %d, %d and %d, %d", site, a, first[1023], b, second[1023])
				}
			}
		}
		w.Close()
		mustDo(t, v.DeleteSnapshot("now"))
	}
}

func TestWritesToASharedChunkWaitForSpaceAndGoOnWhenASnapshotIsDeleted(t *testing.T) {
	disks := snapshotDisks(t)
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	defer v.Close()
	fillUnits(t, v, 4)
	mustDo(t, v.Snapshot("monday"))
	grants, ok := v.alloc.Take(nil, int(v.Status().Free), true)
	if !ok {
		t.Fatal("no chunk is left to take")
	}
	held := newToldRequest(OpWrite, 0, bytes.Repeat([]byte{77}, 512))
	v.Submit(&held.r)
	<-held.held
	holdsUnits(t, v, 4) // reads, and the chunk where it was
	if err := v.Snapshot("tuesday"); !errors.Is(err, ErrNoSpace) {
		t.Error(err)
	}
	mustDo(t, v.DeleteSnapshot("monday"))
	<-held.done
	mustDo(t, held.r.Err)
	for _, g := range grants {
		v.alloc.Put(g.At)
	}
}
