package virstor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// clan is a pool of volumes that have chunks in common: a first one with snapshots, a clone
// of one of them with a snapshot of its own, a clone of that, and one that has nothing in
// common with any.
type clan struct {
	poolModel
	v     *Volume
	cfg   Config
	disks []*disktest.Disk
}

func newClan(t *testing.T, cfg Config) *clan {
	t.Helper()
	return newClanOf(t, 110, 1, cfg)
}

// newClanOf is newClan on disks of so many chunks, with the changes of a seed.
func newClanOf(t *testing.T, chunks int64, seed uint64, cfg Config) *clan {
	t.Helper()
	c := &clan{cfg: cfg, disks: []*disktest.Disk{
		disktest.New("a", chunks*crashChunk, 512).FillJunk(seed), disktest.New("b", chunks*crashChunk+4096, 512).FillJunk(seed + 1),
	}}
	c.volumes, c.snaps = make(map[string][]byte), make(map[string]map[string][]byte)
	c.cfg.WhenFull = Fail
	labelled(t, 40, c.disks...)
	var err error
	c.v, err = openDisks(c.cfg, c.disks)
	mustDo(t, err)
	rng := rand.New(rand.NewPCG(seed, 19))
	grow := func(name string, snaps ...string) {
		h := openHead(t, c.v, name)
		defer h.Release()
		if c.volumes[name] == nil {
			c.volumes[name] = make([]byte, h.Size())
		}
		c.snaps[name] = make(map[string][]byte)
		for _, s := range snaps {
			changeHead(t, h, rng, c.volumes[name], 6)
			mustDo(t, h.Snapshot(s))
			c.snaps[name][s] = bytes.Clone(c.volumes[name])
		}
		changeHead(t, h, rng, c.volumes[name], 3)
	}
	clone := func(of, snap, name string) {
		h := openHead(t, c.v, of)
		defer h.Release()
		mustDo(t, cloneOf(h, snap, name))
		c.volumes[name] = bytes.Clone(c.snaps[of][snap])
	}
	_, err = c.v.WriteAt(bytes.Repeat([]byte{1}, 16*crashChunk), 0)
	mustDo(t, err)
	c.volumes[""] = volumeHolds(t, c.v)
	grow("", "one", "two")
	clone("", "one", "web")
	grow("web", "mine")
	clone("web", "mine", "mail")
	grow("mail")
	clone("", "one", "shop")
	mustDo(t, createIn(c.v, "data", 30*crashChunk))
	grow("data")
	mustDo(t, c.v.Flush())
	return c
}

// alone is how many chunks each volume and snapshot has that no other has.
func (c *clan) alone(t *testing.T) map[string]int64 {
	t.Helper()
	all := make(map[string]int64)
	for name, snaps := range c.snaps {
		h := openHead(t, c.v, name)
		for s := range snaps {
			n, err := h.MayDeleteSnapshot(s)
			if errors.Is(err, ErrCloned) {
				continue
			}
			mustDo(t, err)
			all[name+"@"+s] = n
		}
		h.eachWord(func(vc uint64, p alloc.Phys) bool {
			if !h.chunks.IsNamed(vc, chunkmap.WordOf(p)) {
				all[name]++
			}
			return true
		})
		h.Release()
	}
	return all
}

// reopen closes the pool and opens it from the disks alone, which are then as they say.
func (c *clan) reopen(t *testing.T) {
	t.Helper()
	mustDo(t, c.v.Close())
	var err error
	c.v, err = openDisks(c.cfg, c.disks)
	mustDo(t, err)
	mustDo(t, ownersAgree(c.v, c.disks))
	c.check(t, c.v)
}

// goOn writes to all volumes, and then deletes all but the first: nothing is left.
func (c *clan) goOn(t *testing.T) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	for name, b := range c.volumes {
		h := openHead(t, c.v, name)
		changeHead(t, h, rng, b, 6)
		h.Release()
		c.check(t, c.v)
	}
	c.reopen(t)
	for _, s := range []string{"mail", "/web@mine", "web", "shop", "data", "@one", "@two"} {
		if of, snap, is := strings.Cut(s, "@"); is {
			h := openHead(t, c.v, strings.TrimPrefix(of, "/"))
			mustDo(t, h.DeleteSnapshot(snap))
			h.Release()
			continue
		}
		mustDo(t, c.v.DeleteVolume(s))
	}
	nothingIsLeft(t, c.v)
	mustDo(t, c.v.Stop())
}

// Maps that lie on several disks are written again after a death, each flushed, before anybody
// works for the volume.
func TestAPoolWhoseMapsLieOnSeveralDisksIsOpenedAfterADeath(t *testing.T) {
	c := newClan(t, Config{Alloc: Spread})
	was := c.v
	c.disks = clones(c.disks)
	var err error
	c.v, err = openDisks(c.cfg, c.disks)
	mustDo(t, err)
	c.check(t, c.v)
	homes := make(map[*component]bool)
	for _, h := range c.v.further() {
		for _, home := range h.homes() {
			homes[home] = true
		}
	}
	if len(homes) != 2 {
		t.Errorf("the maps lie on %d disks", len(homes))
	}
	mustDo(t, errors.Join(c.v.Close(), was.Close()))
}

// clanJobs are what moves chunks, and which components there are then.
var clanJobs = []struct {
	name  string
	do    func(c *clan, by *disktest.Disk) error
	comps string
}{
	{"replace of component 0", func(c *clan, by *disktest.Disk) error { return c.v.Replace("a", by, false, JobOptions{}) }, "c b"},
	{"replace of another", func(c *clan, by *disktest.Disk) error { return c.v.Replace("b", by, false, JobOptions{}) }, "a c"},
	{"evacuation of component 0", func(c *clan, by *disktest.Disk) error {
		return errors.Join(c.v.Add([]geomlib.Provider{by}, AddOptions{}), c.v.Evacuate([]string{"a"}, "", JobOptions{}))
	}, "b c"},
	{"evacuation of one in the midst", func(c *clan, by *disktest.Disk) error {
		if err := c.v.Add([]geomlib.Provider{by}, AddOptions{}); err != nil {
			return err
		}
		h, err := c.v.OpenVolume("data")
		if err != nil {
			return err
		}
		defer h.Release()
		b := bytes.Repeat([]byte{9}, 20*crashChunk) // which goes to the new one, too
		if _, err := h.WriteAt(b, 0); err != nil {
			return err
		}
		copy(c.volumes["data"], b)
		return c.v.Evacuate([]string{"b"}, "", JobOptions{})
	}, "a c"},
	{"evacuation of the last", func(c *clan, by *disktest.Disk) error {
		return errors.Join(c.v.Add([]geomlib.Provider{by}, AddOptions{}), c.v.Evacuate([]string{"c"}, "", JobOptions{}))
	}, "a b"},
	{"pack", func(c *clan, _ *disktest.Disk) error { return c.v.Pack(JobOptions{}) }, "a b"},
	{"rebalance", func(c *clan, by *disktest.Disk) error {
		return errors.Join(c.v.Add([]geomlib.Provider{by}, AddOptions{}), c.v.Rebalance(JobOptions{}))
	}, "a b c"},
	{"growing", func(c *clan, _ *disktest.Disk) error { // until what is at the start of component 0 has to make way, and back
		size := c.v.Size()
		if err := c.v.Resize(17000*crashChunk, false, JobOptions{}); err != nil {
			return err
		}
		if s, err := c.v.WaitJob(context.Background()); err != nil || s.Err != nil {
			return errors.Join(err, s.Err)
		}
		return c.v.Resize(size, false, JobOptions{})
	}, "a b"},
}

// Volumes and snapshots have in common what they had where it is moved to.
func TestChunksOfSeveralVolumesAreMoved(t *testing.T) {
	for _, serial := range []bool{true, false} {
		for _, job := range clanJobs {
			for order := range 2 {
				if testing.Short() && serial == (order == 0) {
					continue
				}
				t.Run(fmt.Sprint(job.name, serial, order), func(t *testing.T) {
					c := newClan(t, Config{serial: serial, Alloc: AllocOrder(order)})
					by := disktest.New("c", 160*crashChunk, 512).FillJunk(3)
					had := c.alone(t)
					jobEnds(t, c.v, job.do(c, by))
					c.disks = append(c.disks, by)
					if got := namesOf(c.v); got != job.comps {
						t.Errorf("the components are %s", got)
					}
					c.check(t, c.v)
					for name, n := range c.alone(t) {
						if name != "data" && n != had[name] {
							t.Errorf("%s has %d chunks alone, and had %d", name, n, had[name])
						}
					}
					c.reopen(t)
					c.goOn(t)
				})
			}
		}
	}
}

// Zeros of all volumes come back, but for what a snapshot has, too.
func TestZerosOfSeveralVolumesAreReclaimed(t *testing.T) {
	c := newClan(t, Config{})
	for _, name := range []string{"", "web", "data"} {
		h := openHead(t, c.v, name)
		for _, vc := range []int64{3, 25} {
			_, err := h.WriteAt(make([]byte, crashChunk), vc*crashChunk)
			mustDo(t, err)
			clear(c.volumes[name][vc*crashChunk:][:crashChunk])
		}
		h.Release()
	}
	allocated := func() (n int64) {
		for _, h := range c.v.heads() {
			n += h.allocated.Load()
		}
		return n
	}
	had := allocated()
	s := jobEnds(t, c.v, c.v.Reclaim(JobOptions{}))
	if s.Moved < 6 || allocated() > had-6 {
		t.Errorf("%d chunks of %d are left: %s", allocated(), had, s.Result)
	}
	c.check(t, c.v)
	c.reopen(t)
	c.goOn(t)
}

// A component that changes its index is the same for a clone as for what it is a clone of:
// what the two have in common is not overwritten.
func TestACloneKeepsItsChunksWhenTheirComponentIsRenumbered(t *testing.T) {
	renumber := func(cfg Config) (differs int) {
		cfg.serial, cfg.Alloc = true, Spread
		c := newClan(t, cfg)
		by := disktest.New("c", 160*crashChunk, 512)
		jobEnds(t, c.v, c.v.Replace("a", by, false, JobOptions{}))
		h := openHead(t, c.v, "web")
		defer h.Release()
		for vc := range int64(40) {
			_, err := h.WriteAt(bytes.Repeat([]byte{0xee}, 512), vc*crashChunk)
			mustDo(t, err)
		}
		w, err := c.v.OpenSnapshot("one")
		mustDo(t, err)
		defer w.Close()
		got := make([]byte, w.Size())
		_, err = w.ReadAt(got, 0)
		mustDo(t, err)
		return differsAt(got, c.snaps[""]["one"])
	}
	if i := renumber(Config{}); i >= 0 {
		t.Errorf("the snapshot differs from byte %d on", i)
	}
	if renumber(Config{breakRule: breakOneIndex}) < 0 {
		t.Error("nobody noticed that clones know one index only")
	}
}

// All volumes are written to, one comes to its end and snapshots are read while all of it
// moves to other disks.
func TestVolumesAreWrittenWhileTheirChunksMove(t *testing.T) {
	c := newClan(t, Config{Alloc: Spread})
	var stop atomic.Bool
	var all sync.WaitGroup
	for name, b := range c.volumes {
		if name == "mail" {
			continue
		}
		h := openHead(t, c.v, name)
		all.Go(func() {
			defer h.Release()
			rng := rand.New(rand.NewPCG(uint64(len(name)), 11))
			for !stop.Load() {
				off := rng.Int64N(30)*crashChunk + rng.Int64N(8)*512
				if rng.IntN(8) == 0 {
					off = off / crashChunk * crashChunk
					if err := h.Discard(off, crashChunk); err != nil {
						t.Error(err)
						return
					}
					clear(b[off : off+crashChunk])
					continue
				}
				data := bytes.Repeat([]byte{byte(rng.Uint32())}, 512)
				if _, err := h.WriteAt(data, off); err != nil {
					t.Error(err)
					return
				}
				copy(b[off:], data)
			}
		})
	}
	all.Go(func() {
		if err := c.v.DeleteVolume("mail"); err != nil {
			t.Error(err)
		}
	})
	delete(c.volumes, "mail")
	var spares []*disktest.Disk
	for i, name := range []string{"a", "b"} {
		by := disktest.New(fmt.Sprintf("s%d", i), 160*crashChunk, 512).FillJunk(5)
		spares = append(spares, by)
		err := c.v.Replace(name, by, false, JobOptions{})
		var s JobStatus
		if err == nil {
			s, err = c.v.WaitJob(context.Background())
		}
		if err != nil || s.Err != nil {
			t.Errorf("replace %s: %v, %v", name, err, s.Err)
		}
	}
	stop.Store(true)
	all.Wait()
	c.check(t, c.v)
	c.disks = spares
	c.reopen(t)
	mustDo(t, c.v.Close())
}

// failing makes a disk take no writes.
func failing(d *disktest.Disk) {
	d.Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Write {
			return errors.New("no writes any more")
		}
		return nil
	})
}

// A disk that takes no writes leaves a pool, also one on which the map of a volume lies that
// has met that already, and one that was so when the pool was opened.
func TestAFailingDiskOfSeveralVolumesIsReplaced(t *testing.T) {
	for _, one := range []string{"a", "b"} {
		for _, before := range []bool{true, false} {
			for _, met := range []bool{true, false} {
				for order := range 2 {
					t.Run(fmt.Sprint(one, before, met, order), func(t *testing.T) {
						c := newClanOf(t, 180, uint64(order), Config{ServeStranded: true, Alloc: AllocOrder(order)})
						i := strings.Index("ab", one)
						if before {
							mustDo(t, c.v.Close())
							failing(c.disks[i])
							var err error
							c.v, err = openDisks(c.cfg, c.disks)
							mustDo(t, err)
						} else {
							failing(c.disks[i])
						}
						degraded := 0
						if met {
							for name := range c.volumes {
								h := openHead(t, c.v, name)
								for off := int64(20 * crashChunk); off < 30*crashChunk; off += crashChunk {
									b := bytes.Repeat([]byte{9}, 512)
									if _, err := h.WriteAt(b, off); err == nil {
										copy(c.volumes[name][off:], b)
									}
								}
								if h.ill.is(stateDegraded) {
									degraded++
								}
								h.Release()
							}
						}
						by := disktest.New("c", 220*crashChunk, 512)
						jobEnds(t, c.v, c.v.Replace(one, by, false, JobOptions{}))
						t.Logf("%d volumes were degraded", degraded)
						c.disks[i] = by
						c.check(t, c.v)
						for name, b := range c.volumes {
							h := openHead(t, c.v, name)
							_, err := h.WriteAt([]byte{7}, 28*crashChunk)
							mustDo(t, err)
							b[28*crashChunk] = 7
							h.Release()
						}
						_ = c.v.Close() // which tells of what failed before
						var err error
						c.v, err = openDisks(c.cfg, c.disks)
						mustDo(t, err)
						mustDo(t, ownersAgree(c.v, c.disks))
						c.check(t, c.v)
						c.goOn(t)
					})
				}
			}
		}
	}
}

// movesAndFails replaces component 0 of a pool, of which the nth write or flush fails, and writes
// to all volumes then. It reports whether one failed, and what is wrong when the pool is opened
// again.
func movesAndFails(t *testing.T, nth int, cfg Config) (failed bool, err error) {
	cfg.serial, cfg.Alloc = true, Spread
	c := newClan(t, cfg)
	by := disktest.New("c", 160*crashChunk, 512)
	disks := append(slices.Clone(c.disks), by)
	seen := 0
	var undo []func()
	for _, d := range disks {
		undo = append(undo, d.Inject(func(o disktest.Op) error {
			if o.Kind != disktest.Write && o.Kind != disktest.Flush {
				return nil
			}
			if seen++; seen == nth {
				failed = true
				return errors.New("once")
			}
			return nil
		}))
	}
	_ = c.v.Replace("a", by, false, JobOptions{})
	_, _ = c.v.WaitJob(t.Context())
	for _, u := range undo {
		u()
	}
	for name, b := range c.volumes {
		h := openHead(t, c.v, name)
		for off := int64(20 * crashChunk); off < 30*crashChunk; off += crashChunk {
			if _, err := h.WriteAt(bytes.Repeat([]byte{0xab}, 512), off); err == nil {
				copy(b[off:], bytes.Repeat([]byte{0xab}, 512))
			}
		}
		h.Release()
	}
	_ = c.v.Close() // which tells of what failed
	for range 2 {   // of a flush that failed, once
		if c.v, err = openDisks(c.cfg, disks); err == nil {
			break
		}
	}
	if err != nil {
		return failed, err
	}
	defer func() { err = errors.Join(err, c.v.Close()) }()
	if s, err := c.v.WaitJob(t.Context()); err != nil || s.Err != nil {
		return failed, errors.Join(err, s.Err)
	}
	return failed, errors.Join(ownersAgree(c.v, disks), c.differs(t))
}

// differs is what volume holds something else than it is to.
func (c *clan) differs(t *testing.T) error {
	for name, want := range c.volumes {
		h, err := c.v.OpenVolume(name)
		if err != nil {
			return err
		}
		h.Release()
		if i := differsAt(headHolds(t, c.v, name), want); i >= 0 {
			return fmt.Errorf("volume %q differs from byte %d on, of chunk %d", name, i, i/crashChunk)
		}
	}
	return nil
}

// Whatever request fails while chunks of several volumes move, nothing that is acknowledged
// then is lost: not by a record either of which nobody knows whether it is in force.
func TestAStepOfAMoveOfSeveralVolumesThatFailsLosesNothing(t *testing.T) {
	step := 3
	if testing.Short() {
		step = 11
	}
	for n := 1; ; n += step {
		failed, err := movesAndFails(t, n, Config{})
		if err != nil {
			t.Errorf("request %d: %v", n, err)
		}
		if !failed {
			t.Logf("%d requests", n)
			break
		}
	}
	for n := 30; ; n++ {
		failed, err := movesAndFails(t, n, Config{breakRule: breakPartInDoubt})
		if err != nil {
			t.Logf("request %d: %v", n, err)
			break
		}
		if !failed {
			t.Error("nobody noticed that a map changes of which nobody knows where it is")
			break
		}
	}
}
