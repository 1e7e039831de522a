package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// createIn makes a further volume.
func createIn(v *Volume, name string, size int64) error {
	_, err := v.CreateVolume(name, size, false)
	return err
}

// cloneOf makes a further volume of a snapshot of h.
func cloneOf(h *Head, snap, name string) error {
	_, err := h.CloneSnapshot(snap, name, false)
	return err
}

// openHead opens a volume of the pool, for as long as the test lasts.
func openHead(t *testing.T, v *Volume, name string) *Head {
	t.Helper()
	h, err := v.OpenVolume(name)
	mustDo(t, err)
	return h
}

// headHolds is all that a volume of the pool holds.
func headHolds(t *testing.T, v *Volume, name string) []byte {
	t.Helper()
	h := openHead(t, v, name)
	defer h.Release()
	b := make([]byte, h.Size())
	_, err := h.ReadAt(b, 0)
	mustDo(t, err)
	return b
}

// changeHead does n requests to a volume of the pool, and to b. What finds no room is not
// done.
func changeHead(t *testing.T, h *Head, rng *rand.Rand, b []byte, n int) {
	t.Helper()
	for range n {
		off := rng.Int64N(h.Size() - 1)
		length := 1 + rng.Int64N(min(h.Size()-off, crashChunk+1000))
		if rng.IntN(2) == 0 { // whole sectors
			off, length = off&^511, (length+511)&^511
			length = min(length, h.Size()-off)
		}
		switch rng.IntN(5) {
		case 0: // of whole chunks, so that it is known what they hold
			off = off / crashChunk * crashChunk
			length = min(2*crashChunk, h.Size()-off)
			mustDo(t, h.Discard(off, length))
			clear(b[off : off+length])
		default:
			data := bytes.Repeat([]byte{byte(rng.Uint32())}, int(length))
			_, err := h.WriteAt(data, off)
			if errors.Is(err, ErrNoSpace) { // some of it may be there
				_, err = h.ReadAt(b[off:off+length], off)
				mustDo(t, err)
				continue
			}
			mustDo(t, err)
			copy(b[off:], data)
		}
	}
}

// poolModel is what a pool with several volumes holds.
type poolModel struct {
	volumes map[string][]byte
	snaps   map[string]map[string][]byte // by volume
	origins map[string][2]string         // of clones
}

func (m *poolModel) check(t *testing.T, v *Volume) {
	t.Helper()
	for name, want := range m.volumes {
		if i := differsAt(headHolds(t, v, name), want); i >= 0 {
			t.Fatalf("volume %q differs from byte %d on, of chunk %d", name, i, i/crashChunk)
		}
		h := openHead(t, v, name)
		for snap, want := range m.snaps[name] {
			w, err := h.OpenSnapshot(snap)
			mustDo(t, err)
			got := make([]byte, w.Size())
			_, err = w.ReadAt(got, 0)
			mustDo(t, err)
			w.Close()
			if i := differsAt(got, want); i >= 0 {
				t.Fatalf("%s@%s differs from byte %d on, of chunk %d", name, snap, i, i/crashChunk)
			}
		}
		h.Release()
	}
	if got := len(v.Volumes()) + 1; got != len(m.volumes) {
		t.Fatalf("%d volumes, want %d", got, len(m.volumes))
	}
}

// poolDisks are those of a volume of 48 chunks in a pool of 200.
func poolDisks(t *testing.T) []*disktest.Disk {
	t.Helper()
	disks := []*disktest.Disk{disktest.New("a", 90*crashChunk, 512), disktest.New("b", 110*crashChunk+4096, 512)}
	for i, d := range disks {
		d.FillJunk(uint64(i))
	}
	labelled(t, 48, disks...)
	return disks
}

// isFine reports whether a change of a pool may end with err, which changes nothing.
func isFine(err error) bool {
	for _, fine := range []error{ErrNoSpace, ErrCloned, ErrHasSnapshots} {
		if errors.Is(err, fine) {
			return true
		}
	}
	return err == nil
}

func TestVolumesOfAPoolHoldWhatWasWrittenToEach(t *testing.T) {
	for _, serial := range []bool{true, false} {
		for seed := range uint64(5) {
			rng := rand.New(rand.NewPCG(seed, 17))
			disks := poolDisks(t)
			open := func() *Volume {
				v, err := openDisks(Config{serial: serial, WhenFull: Fail, Alloc: AllocOrder(seed % 2)}, disks)
				mustDo(t, err)
				return v
			}
			v := open()
			free := v.Status().Free
			m := &poolModel{
				volumes: map[string][]byte{"": make([]byte, v.Size())},
				snaps:   map[string]map[string][]byte{"": {}},
				origins: make(map[string][2]string),
			}
			some := func() string { // a volume
				return slices.Sorted(maps.Keys(m.volumes))[rng.IntN(len(m.volumes))]
			}
			for step := range 40 {
				name := some()
				h := openHead(t, v, name)
				fresh := fmt.Sprintf("n%d", step)
				switch rng.IntN(9) {
				case 0:
					if len(m.volumes) < 4 {
						size := (1 + rng.Int64N(30)) * crashChunk
						err := createIn(v, fresh, size)
						if !isFine(err) {
							t.Fatal(err)
						}
						if err == nil {
							m.volumes[fresh], m.snaps[fresh] = make([]byte, size), make(map[string][]byte)
						}
					}
				case 1:
					err := h.Snapshot(fresh)
					if !isFine(err) {
						t.Fatal(err)
					}
					if err == nil {
						m.snaps[name][fresh] = bytes.Clone(m.volumes[name])
					}
				case 2, 3:
					for snap, b := range m.snaps[name] {
						if len(m.volumes) >= 5 {
							break
						}
						err := cloneOf(h, snap, fresh)
						if !isFine(err) {
							t.Fatal(err)
						}
						if err == nil {
							m.volumes[fresh], m.snaps[fresh] = bytes.Clone(b), make(map[string][]byte)
							m.origins[fresh] = [2]string{name, snap}
						}
						break
					}
				case 4:
					for snap := range m.snaps[name] {
						err := h.DeleteSnapshot(snap)
						if !isFine(err) {
							t.Fatal(err)
						}
						cloned := slices.Contains(slices.Collect(maps.Values(m.origins)), [2]string{name, snap})
						if cloned != errors.Is(err, ErrCloned) {
							t.Fatalf("%s@%s is cloned: %t; deleting it: %v", name, snap, cloned, err)
						}
						if err == nil {
							delete(m.snaps[name], snap)
						}
						break
					}
				case 5:
					if name == "" {
						break
					}
					if err := v.DeleteVolume(name); !errors.Is(err, ErrVolumeInUse) {
						t.Fatal(err)
					}
					h.Release()
					err := v.DeleteVolume(name)
					if (err == nil) != (len(m.snaps[name]) == 0) {
						t.Fatalf("with %d snapshots: %v", len(m.snaps[name]), err)
					}
					if err == nil {
						delete(m.volumes, name)
						delete(m.snaps, name)
						delete(m.origins, name)
					}
					h = openHead(t, v, "")
				default:
					changeHead(t, h, rng, m.volumes[name], 6)
				}
				h.Release()
				if rng.IntN(5) == 0 {
					mustDo(t, v.Close())
					v = open()
				}
				m.check(t, v)
			}
			for len(m.volumes) > 1 { // clones before what they come from
				for name := range m.volumes {
					h := openHead(t, v, name)
					for snap := range m.snaps[name] {
						if h.DeleteSnapshot(snap) == nil {
							delete(m.snaps[name], snap)
						}
					}
					h.Release()
					if name != "" && v.DeleteVolume(name) == nil {
						delete(m.volumes, name)
					}
				}
			}
			for snap := range m.snaps[""] {
				mustDo(t, v.DeleteSnapshot(snap))
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

// fillFirst gives the first volume chunks until so many are free.
func fillFirst(t *testing.T, v *Volume, leave int64) {
	t.Helper()
	for off := int64(0); v.alloc.Available() > leave; off += crashChunk {
		_, err := v.WriteAt([]byte{1}, off)
		mustDo(t, err)
	}
}

// crowded is a pool of three volumes without a free chunk, to which a component was added,
// after which one of the volumes was written to, and the process died.
func crowded(t *testing.T, cfg Config) error {
	disks := []*disktest.Disk{disktest.New("a", 40*crashChunk, 512), disktest.New("b", 40*crashChunk, 512)}
	labelled(t, 80, disks[0])
	cfg.WhenFull = Fail
	v, err := openDisks(cfg, disks[:1])
	mustDo(t, err)
	mustDo(t, createIn(v, "web", 30*crashChunk))
	fillFirst(t, v, 0)
	if err := v.Add([]geomlib.Provider{disks[1]}, AddOptions{}); err != nil {
		return err
	}
	h := openHead(t, v, "web")
	want := make([]byte, h.Size())
	changeHead(t, h, rand.New(rand.NewPCG(1, 1)), want, 5)
	h.Release()
	mustDo(t, v.Flush())
	dead := []*disktest.Disk{disks[0].Survivor(), disks[1].Survivor()}
	again, err := openDisks(cfg, dead)
	if err != nil {
		return err
	}
	defer func() { mustDo(t, errors.Join(v.Close(), again.Close())) }()
	if _, err := again.OpenVolume("web"); err != nil {
		return err
	}
	if i := differsAt(headHolds(t, again, "web"), want); i >= 0 {
		return fmt.Errorf("it differs from byte %d on", i)
	}
	return nil
}

func TestAVolumeHasChunksOfAComponentThatJoinedLater(t *testing.T) {
	mustDo(t, crowded(t, Config{}))
	if err := crowded(t, Config{breakRule: breakMapMembers}); err == nil {
		t.Error("nobody notices that the directory has no number for it")
	}
}

// Adding a component to a pool with volumes is interrupted by an error at every write: what
// joins has a number at the latest when the volume is opened again.
func TestAnAddThatCannotBeNumberedTakesNoData(t *testing.T) {
	numbered := 0
	for nth := 1; ; nth++ {
		disks := []*disktest.Disk{disktest.New("a", 40*crashChunk, 512), disktest.New("b", 40*crashChunk, 512)}
		labelled(t, 80, disks[0])
		cfg := Config{WhenFull: Fail, serial: true}
		v, err := openDisks(cfg, disks[:1])
		mustDo(t, err)
		mustDo(t, createIn(v, "web", 30*crashChunk))
		fillFirst(t, v, 0)
		n := 0
		remove := disks[0].Inject(func(op disktest.Op) error {
			if op.Kind == disktest.Write {
				if n++; n == nth {
					return syscall.EIO
				}
			}
			return nil
		})
		err = v.Add([]geomlib.Provider{disks[1]}, AddOptions{})
		remove()
		if n < nth {
			mustDo(t, errors.Join(err, v.Close()))
			break
		}
		h := openHead(t, v, "web")
		_, wrote := h.WriteAt(bytes.Repeat([]byte{7}, 512), 5*crashChunk)
		h.Release()
		if wrote == nil && err != nil {
			t.Errorf("write %d fails (%v), and yet the volume has a chunk of what joined", nth, err)
		}
		if len(v.components()) == 2 {
			numbered++
		}
		_ = v.Close() // a record may be in doubt
		if v, err = openDisks(cfg, disks); err != nil {
			t.Fatalf("write %d: %v", nth, err)
		}
		if len(v.components()) == 2 {
			h := openHead(t, v, "web")
			_, err := h.WriteAt(bytes.Repeat([]byte{7}, 512), 5*crashChunk)
			mustDo(t, err)
			h.Release()
			mustDo(t, v.Close())
			v, err = openDisks(cfg, disks)
			mustDo(t, err)
			if got := headHolds(t, v, "web")[5*crashChunk]; got != 7 {
				t.Errorf("write %d: %d is read", nth, got)
			}
		}
		mustDo(t, v.Close())
	}
	if numbered == 0 {
		t.Error("no failure left a component without a number")
	}
}

// Whatever write fails while a volume is made, cloned or deleted, the pool is what it was or
// what it was to be, and nothing is lost of the room there is.
func TestAVolumeThatFailsLeavesNothing(t *testing.T) {
	for kind, do := range map[string]func(v *Volume) error{
		"create": func(v *Volume) error { return createIn(v, "new", 20*crashChunk) },
		"clone":  func(v *Volume) error { return cloneOf(&v.Head, "s", "new") },
		"delete": func(v *Volume) error { return v.DeleteVolume("old") },
		"rename": func(v *Volume) error { return v.RenameVolume("old", "new", false) },
	} {
		for nth := 1; ; nth++ {
			disks := poolDisks(t)
			cfg := Config{serial: true, WhenFull: Fail}
			v, err := openDisks(cfg, disks)
			mustDo(t, err)
			rng := rand.New(rand.NewPCG(3, 3))
			now := make([]byte, v.Size())
			changeHead(t, &v.Head, rng, now, 8)
			mustDo(t, v.Snapshot("s"))
			then := bytes.Clone(now)
			changeHead(t, &v.Head, rng, now, 8)
			mustDo(t, cloneOf(&v.Head, "s", "old"))
			old := bytes.Clone(then)
			h := openHead(t, v, "old")
			changeHead(t, h, rng, old, 8)
			h.Release()
			mustDo(t, v.Flush())
			n := 0
			var remove []func()
			for _, d := range disks {
				remove = append(remove, d.Inject(func(op disktest.Op) error {
					if op.Kind == disktest.Write {
						if n++; n == nth {
							return syscall.EIO
						}
					}
					return nil
				}))
			}
			err = do(v)
			for _, r := range remove {
				r()
			}
			if n >= nth && err == nil {
				t.Fatalf("%s: write %d fails, and nobody is told", kind, nth)
			}
			if i := differsAt(volumeHolds(t, v), now); i >= 0 {
				t.Fatalf("%s, write %d: the first volume differs from byte %d on", kind, nth, i)
			}
			_ = v.Close()
			v, err = openDisks(cfg, disks)
			mustDo(t, err)
			for _, i := range v.Volumes() {
				want := map[string][]byte{"create new": make([]byte, 20*crashChunk), "clone new": then, "rename new": old}[kind+" "+i.Name]
				if i.Name == "old" {
					want = old
				}
				if at := differsAt(headHolds(t, v, i.Name), want); at >= 0 {
					t.Fatalf("%s, write %d: volume %s differs from byte %d on", kind, nth, i.Name, at)
				}
			}
			mustDo(t, ownersAgree(v, disks))
			mustDo(t, v.Close())
			if n < nth {
				break
			}
		}
	}
}

// A volume whose map cannot be written is degraded by itself: the others go on.
func TestAVolumeWhoseMapCannotBeWrittenIsDegradedAlone(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{serial: true, WhenFull: Fail}, disks)
	mustDo(t, err)
	mustDo(t, createIn(v, "one", 20*crashChunk))
	mustDo(t, createIn(v, "two", 20*crashChunk))
	one, two := openHead(t, v, "one"), openHead(t, v, "two")
	write := func(h *Head, vc int64, b byte) error {
		_, err := h.WriteAt(bytes.Repeat([]byte{b}, 512), vc*crashChunk)
		return err
	}
	mustDo(t, write(one, 1, 1))
	home := one.stored().parts[0].at
	remove := disks[home.Comp].Inject(func(op disktest.Op) error {
		at := int64(home.Chunk) * crashChunk
		if op.Kind == disktest.Write && op.Off >= at && op.Off < at+crashChunk {
			return syscall.EIO
		}
		return nil
	})
	if err := write(one, 2, 2); err == nil {
		t.Error("a write succeeds whose map sector could not be written")
	}
	if err := write(one, 3, 3); !errors.Is(err, ErrDegraded) {
		t.Errorf("a second write: %v", err)
	}
	mustDo(t, write(one, 1, 4)) // it has a chunk
	for i, h := range []*Head{two, &v.Head} {
		if err := write(h, 2, 5); err != nil {
			t.Errorf("another volume, %d: %v", i, err)
		}
	}
	if err := one.Snapshot("s"); !errors.Is(err, ErrDegraded) {
		t.Errorf("a snapshot of it: %v", err)
	}
	mustDo(t, two.Snapshot("s"))
	remove()
	one.committer.expire()
	mustDo(t, write(one, 3, 6))
	mustDo(t, one.Snapshot("s"))
	want := headHolds(t, v, "one")
	one.Release()
	two.Release()
	mustDo(t, v.Close())
	v, err = openDisks(Config{serial: true}, disks)
	mustDo(t, err)
	if i := differsAt(headHolds(t, v, "one"), want); i >= 0 {
		t.Errorf("it differs from byte %d on", i)
	}
	mustDo(t, ownersAgree(v, disks))
	mustDo(t, v.Close())
}

// A volume whose map cannot be read answers with an error, is kept from all, and can be
// deleted; then the others go on.
func TestADamagedVolumeIsNotBelieved(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	mustDo(t, createIn(v, "bad", 20*crashChunk))
	mustDo(t, createIn(v, "good", 20*crashChunk))
	h := openHead(t, v, "bad")
	want := make([]byte, h.Size())
	changeHead(t, h, rand.New(rand.NewPCG(1, 1)), want, 8)
	at := h.stored().parts[0].at
	h.Release()
	mustDo(t, v.Close())
	_, err = disks[at.Comp].WriteAt(bytes.Repeat([]byte{0xa5}, 512), int64(at.Chunk)*crashChunk)
	mustDo(t, err)
	v, err = openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	if _, err := v.OpenVolume("bad"); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	good := openHead(t, v, "good")
	if _, err := good.WriteAt([]byte{1}, 0); err == nil {
		t.Error("a chunk is given out while nobody knows what the damaged volume names")
	}
	mustDo(t, v.DeleteVolume("bad"))
	_, err = good.WriteAt([]byte{1}, 0)
	mustDo(t, err)
	good.Release()
	mustDo(t, v.Close())
	v, err = openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	mustDo(t, ownersAgree(v, disks))
	mustDo(t, v.Close())
}

// Writes of several volumes that find no space are held each for itself, and go on when one
// of the volumes is deleted.
func TestHeldWritesOfSeveralVolumesGoOn(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{WhenFull: Wait}, disks)
	mustDo(t, err)
	mustDo(t, createIn(v, "one", 30*crashChunk))
	mustDo(t, createIn(v, "two", 200*crashChunk))
	one, two := openHead(t, v, "one"), openHead(t, v, "two")
	for off := int64(0); v.alloc.Available() > 0; off += crashChunk {
		_, err := two.WriteAt([]byte{1}, off)
		mustDo(t, err)
	}
	var wg sync.WaitGroup
	for i, h := range []*Head{one, &v.Head} {
		wg.Go(func() {
			_, err := h.WriteAt([]byte{byte(i + 1)}, 3*crashChunk)
			if err != nil {
				t.Error(err)
			}
		})
	}
	for v.Status().Held.Count < 2 {
		runtime.Gosched()
	}
	two.Release()
	mustDo(t, v.DeleteVolume("two"))
	wg.Wait()
	one.Release()
	if got := headHolds(t, v, "one")[3*crashChunk]; got != 1 {
		t.Errorf("%d is read", got)
	}
	mustDo(t, v.Close())
}

// Requests to several volumes meet snapshots, clones and deletions.
func TestVolumesAreUsedBesideEachOther(t *testing.T) {
	disks := poolDisks(t)
	v, err := openDisks(Config{WhenFull: Fail}, disks)
	mustDo(t, err)
	mustDo(t, createIn(v, "a", 20*crashChunk))
	mustDo(t, createIn(v, "b", 20*crashChunk))
	var wg sync.WaitGroup
	for i, name := range []string{"", "a", "b"} {
		wg.Go(func() {
			h := openHead(t, v, name)
			defer h.Release()
			b := make([]byte, h.Size())
			changeHead(t, h, rand.New(rand.NewPCG(uint64(i), 3)), b, 60)
			mustDo(t, h.Flush())
			got := make([]byte, h.Size())
			_, err := h.ReadAt(got, 0)
			mustDo(t, err)
			if i := differsAt(got, b); i >= 0 {
				t.Errorf("%q differs from byte %d on", name, i)
			}
		})
	}
	wg.Go(func() {
		h := openHead(t, v, "a")
		defer h.Release()
		for i := range 8 {
			for _, err := range []error{h.Snapshot("s"), cloneOf(h, "s", "c"), createIn(v, fmt.Sprint("d", i), crashChunk),
				v.DeleteVolume(fmt.Sprint("d", i)), v.RenameVolume("c", "e", false), v.DeleteVolume("e"), v.DeleteVolume("c"), h.DeleteSnapshot("s")} {
				if err != nil && !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrNoVolume) && !errors.Is(err, ErrNoSnapshot) {
					t.Error(err)
				}
			}
			_ = v.Volumes()
			_ = v.Status()
		}
	})
	wg.Wait()
	mustDo(t, v.Close())
	v, err = openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, ownersAgree(v, disks))
	mustDo(t, v.Close())
}

// What is done to a pool that nobody serves, and taking it over, leave its volumes what they
// are.
func TestVolumesOutliveWhatIsDoneToThePool(t *testing.T) {
	for _, orderly := range []bool{true, false} {
		disks := poolDisks(t)
		v, err := openDisks(Config{}, disks)
		mustDo(t, err)
		rng := rand.New(rand.NewPCG(2, 2))
		first := make([]byte, v.Size())
		changeHead(t, &v.Head, rng, first, 10)
		mustDo(t, v.Snapshot("s"))
		web := bytes.Clone(first)
		mustDo(t, cloneOf(&v.Head, "s", "web"))
		then := bytes.Clone(first)
		changeHead(t, &v.Head, rng, first, 10)
		h := openHead(t, v, "web")
		changeHead(t, h, rng, web, 10)
		h.Release()
		mustDo(t, v.Flush())
		if orderly {
			mustDo(t, v.Close())
		} else {
			for i, d := range disks {
				disks[i] = d.Survivor()
			}
			defer func(v *Volume) { mustDo(t, v.Close()) }(v)
		}
		assembled := func() *Assembly {
			a, err := assembleDisks(disks)
			mustDo(t, err)
			return a
		}
		look := func(v *Volume, err error) {
			t.Helper()
			mustDo(t, err)
			if i := differsAt(headHolds(t, v, "web"), web); i >= 0 {
				t.Fatalf("it differs from byte %d on", i)
			}
		}
		v, err = openDisks(Config{ReadOnly: true}, disks)
		look(v, err)
		mustDo(t, v.Close())
		v, err = openDisks(Config{DeferWrites: true}, disks)
		look(v, err)
		mustDo(t, v.Activate(nil))
		h = openHead(t, v, "web")
		changeHead(t, h, rng, web, 10)
		h.Release()
		look(v, nil)
		mustDo(t, v.RaiseGeneration())
		mustDo(t, v.Close())
		mustDo(t, Rollback(assembled(), "s", true, v.log))
		mustDo(t, Rename(assembled(), "other", false, v.log))
		mustDo(t, NewID(assembled(), 77, false, v.log))
		v, err = openDisks(Config{}, disks)
		look(v, err)
		if i := differsAt(volumeHolds(t, v), then); i >= 0 {
			t.Errorf("the first volume differs from what it is rolled back to from byte %d on", i)
		}
		mustDo(t, ownersAgree(v, disks))
		mustDo(t, v.Close())
	}
}

// furtherAfterPowerLoss is what a further volume holds after a loss of power, when its map was
// left in a cache by a flush that failed, the volume was opened again, and then written to
// once more and flushed.
func furtherAfterPowerLoss(t *testing.T, cfg Config) byte {
	t.Helper()
	a := disktest.New("a", 32*crashChunk, 512).SetForgetful(true).SetKeepsCache(true)
	labelled(t, 64, a)
	disks := []*disktest.Disk{a}
	v, err := openDisks(Config{}, disks)
	mustDo(t, err)
	mustDo(t, createIn(v, "web", 8*crashChunk))
	write := func(b byte) {
		h := openHead(t, v, "web")
		defer h.Release()
		_, err := h.WriteAt(bytes.Repeat([]byte{b}, 512), 0)
		mustDo(t, err)
	}
	write(1)
	a.FailFrom(disktest.Flush, 1, syscall.EIO)
	if err := v.Flush(); !errors.Is(err, ErrFlushFailed) {
		t.Fatalf("flush: %v", err)
	}
	if v.Close() == nil {
		t.Fatal("closed in order")
	}
	a.Heal()
	v, err = openDisks(cfg, disks)
	mustDo(t, err)
	write(2)
	mustDo(t, v.Flush())
	left := []*disktest.Disk{a.Crash(rand.New(rand.NewPCG(1, 1)))}
	v, err = openDisks(Config{}, left)
	mustDo(t, err)
	return headHolds(t, v, "web")[0]
}

func TestTheMapOfAFurtherVolumeThatAFailedFlushLeftInACacheIsNotBelieved(t *testing.T) {
	if got := furtherAfterPowerLoss(t, Config{}); got != 2 {
		t.Errorf("it holds %d, want 2, which was flushed", got)
	}
	if got := furtherAfterPowerLoss(t, Config{breakRule: breakLiveRewrite}); got == 2 {
		t.Error("nobody notices that the map was not written again")
	}
}

// TestAPoolThatIsOnlyReadTellsThatANameIsTaken, as one that can be written to.
func TestAPoolThatIsOnlyReadTellsThatANameIsTaken(t *testing.T) {
	a := disktest.New("a", 64*crashChunk, 512)
	labelled(t, 16, a)
	v, err := openDisks(Config{}, []*disktest.Disk{a})
	mustDo(t, err)
	_, err = v.CreateVolume("web", crashChunk, false)
	mustDo(t, err)
	mustDo(t, v.Snapshot("monday"))
	for _, readOnly := range []bool{false, true} {
		if readOnly {
			mustDo(t, v.Close())
			v, err = openDisks(Config{ReadOnly: true}, []*disktest.Disk{a})
			mustDo(t, err)
		}
		for name, want := range map[string]error{"web": ErrVolumeExists, "a/b": ondisk.ErrMapName, "other": nil} {
			if _, err := v.CreateVolume(name, crashChunk, true); !errors.Is(err, want) {
				t.Errorf("read-only %t, create %s: %v", readOnly, name, err)
			}
			if _, err := v.CloneSnapshot("monday", name, true); !errors.Is(err, want) {
				t.Errorf("read-only %t, clone as %s: %v", readOnly, name, err)
			}
		}
	}
	mustDo(t, v.Close())
}
