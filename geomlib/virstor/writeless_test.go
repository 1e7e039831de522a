package virstor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// writeless is a verb beside a disk that from some write on takes no more, but is
// read, and what comes of that at the next start.
type writeless struct {
	w      *world
	rng    *rand.Rand
	i      int   // the disk
	from   int64 // its first write that fails
	closed bool  // the volume was, else power is cut
}

// writelessRun lets one disk of a verb's volume take no writes from an instant on that
// the seed chooses. Of the index it is what the seed's remainder says.
func writelessRun(v *verb, seed uint64, counts *crashCounts) error {
	w, err := newVerbWorld(v, seed, Config{ServeStranded: true}, counts)
	if err != nil {
		return fmt.Errorf("%s, seed %d: %w", v.name, seed, err)
	}
	w.hadFailing = true // for the lives after this
	r := &writeless{w: w, rng: rand.New(rand.NewPCG(seed, 7))}
	r.i = int((seed + seed/uint64(len(w.disks))) % uint64(len(w.disks)))
	r.from = 1 + r.rng.Int64N(1<<r.rng.IntN(6))
	r.closed = r.rng.IntN(2) == 0
	if err := r.run(); err != nil {
		return fmt.Errorf("%s, seed %d, %s takes no writes from its write %d on: %w", v.name, seed, r.name(), r.from, err)
	}
	return nil
}

func (r *writeless) name() string { return r.w.disks[r.i].Name() }

// takesNone makes d fail what changes it, from that request on.
func takesNone(d *disktest.Disk, from int64, met *atomic.Bool) (heal func()) {
	var seen atomic.Int64
	return d.Inject(func(o disktest.Op) error {
		if o.Kind == disktest.Write || o.Kind == disktest.Delete || o.Kind == disktest.Zero {
			if seen.Add(1) >= from {
				met.Store(true)
				return syscall.EIO
			}
		}
		return nil
	})
}

func (r *writeless) run() error {
	w, v := r.w, r.w.verb
	var met atomic.Bool
	defer takesNone(w.disks[r.i], r.from, &met)()
	var left bool
	err := error(nil)
	if v.offline {
		err = r.named(v.do(w))
	} else {
		left, err = r.serve(&met)
	}
	if err != nil || !met.Load() {
		return err
	}
	if err := r.afterwards(left); err != nil || v.offline || v.opens != openAlways {
		return err
	}
	return r.amid()
}

// named lets an error be that is a failing disk's, or is that there is no room where the
// disk is given none, and says which.
func (r *writeless) named(err error) error {
	if err == nil || (isFailure(err) || errors.Is(err, ErrNoSpace)) && strings.Contains(err.Error(), r.name()) {
		return nil
	}
	return fmt.Errorf("%s: does not tell what fails: %w", r.w.verb.name, err)
}

// serve does the verb among writes, and ends as the seed says. It reports whether the
// disk is no component any more.
func (r *writeless) serve(met *atomic.Bool) (left bool, err error) {
	w := r.w
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		w.vol = nil
		return false, r.named(err)
	}
	w.fenced()
	was := w.has(r.name())
	if err = r.service(); err == nil {
		err = r.verbAlone()
	}
	if w.vol == nil { // the verb reopens, and could not
		return false, err
	}
	if err == nil && !w.vol.cond.is(stateClosing) {
		left = was && !w.has(r.name())
	}
	// While it stays degraded a chunk may be locked for good; where Activate failed, writes
	// wait for another one.
	settled := !w.vol.cond.is(stateClosing) && !w.vol.cond.is(stateDegraded)
	if err == nil && settled && (w.vol.life.writable.Load() || w.vol.Stranded()) {
		if err = r.service(); err == nil {
			_, err = w.readAll(w.model.at(w.rec.Len(), true))
		}
	}
	if !r.closed {
		r.cut(err)
	}
	if cerr := w.vol.Close(); cerr != nil && !met.Load() {
		err = errors.Join(err, cerr)
	}
	return left, err
}

// cut keeps the log as it is: what follows is not to be seen by the next start.
func (r *writeless) cut(err error) {
	if err == nil {
		r.w.start = r.w.rec.Len()
	}
}

// service is writes and a flush, which may fail where the disk does.
func (r *writeless) service() error {
	for _, do := range []func() error{r.w.someWrites, r.w.flush} {
		if err := do(); err != nil && !isFailure(err) && !errors.Is(err, ErrTakesNoWrites) {
			return err
		}
	}
	return nil
}

// leavers are the disks that verbs take out.
var leavers = map[string][]string{
	"remove of the last": {"d2"}, "remove from the middle": {"d1"}, "evacuate": {"d1"}, "evacuate of two": {"d1", "d2"},
	"evacuate, cancelled, begun again": {"d1"}, "evacuate, closed, resumed": {"d1"}, "replace": {"d1"},
	"evacuate of component 0 beside one that is empty": {"d0"}, "component 0 by a new one": {"d0"},
}

// verbAlone does the verb. One that takes the disk out has to succeed.
func (r *writeless) verbAlone() error {
	w := r.w
	w.counts.ops.Add(1)
	err := w.verb.do(w)
	if !slices.Contains(leavers[w.verb.name], r.name()) {
		return r.named(err)
	}
	if err != nil {
		return fmt.Errorf("it cannot leave: %w", err)
	}
	if w.has(r.name()) {
		return errors.New("it has not left")
	}
	return nil
}

// afterwards starts anew: without the disk if it left, with the disk that still takes no
// writes, and with the disk healthy again.
func (r *writeless) afterwards(left bool) error {
	w := r.w
	k := w.rec.Len()
	if w.start > 0 {
		k = w.start
	}
	w.start = 0
	for _, s := range r.states(k) {
		w.counts.writeless.Add(1)
		if left {
			w.counts.writelessLeft.Add(1)
			if err := r.without(s.disks(), s.now); err != nil {
				return fmt.Errorf("%safterwards without it: %w", s.how, err)
			}
			if err := r.backStale(s.disks(), s.now); err != nil {
				return fmt.Errorf("%safterwards, when it is back: %w", s.how, err)
			}
		} else if err := r.stillFails(s.disks(), s.now); err != nil {
			return fmt.Errorf("%safterwards, while it takes none: %w", s.how, err)
		}
		b := breadth{goOn: 1, fill: 1}
		if err := w.recovered(s.disks(), s.now, s.cached, s.how+"it takes writes again; ", b, b); err != nil {
			return err
		}
	}
	return nil
}

// writelessState is what an end of the process, or of the power, leaves.
type writelessState struct {
	how         string
	disks       func() []*disktest.Disk
	now, cached *view
}

// states are those of an end at position k.
func (r *writeless) states(k int) []writelessState {
	w := r.w
	alive, lost := w.model.at(k, true), w.model.at(k, false)
	seed := r.rng.Uint64()
	return []writelessState{
		{"killed; ", func() []*disktest.Disk { return w.rec.ProcessDeath(k) }, alive, lost},
		{"power lost with all in caches; ", func() []*disktest.Disk { return w.rec.State(k, disktest.None) }, lost, nil},
		{"power lost; ", func() []*disktest.Disk { return w.rec.State(k, disktest.Random(rand.New(rand.NewPCG(seed, 1)))) }, lost, nil},
	}
}

// amidCuts is how often a run is cut off in the midst.
func amidCuts() int {
	if testing.Short() {
		return 1
	}
	return 3
}

// amid lets the process or the power end at instants in the midst of the verb, and
// starts anew: with the disk that still takes no writes, without it if it has left, or is
// leaving, and with the disk healthy again.
func (r *writeless) amid() error {
	w := r.w
	before := w.memberOf(w.rec.ProcessDeath(0), r.name())
	for range amidCuts() {
		k := w.fencedAt(r.rng)
		for _, s := range r.states(k) {
			w.counts.writelessAmid.Add(1)
			how := fmt.Sprintf("%s at %d%s; ", s.how, k, w.next(k))
			if before && !w.memberOf(s.disks(), r.name()) {
				if err := r.without(s.disks(), s.now); err != nil {
					return fmt.Errorf("%swithout it: %w", how, err)
				}
			} else if err := r.stillFails(s.disks(), s.now); err != nil {
				return fmt.Errorf("%swhile it takes none: %w", how, err)
			}
			b := breadth{goOn: 1}
			if err := w.recovered(s.disks(), s.now, s.cached, how+"it takes writes again; ", b, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// memberOf reports whether the disk of that name is a member of the volume on disks, or
// there is none.
func (w *world) memberOf(disks []*disktest.Disk, name string) bool {
	a := assembled(disks)
	return a == nil || a.Err != nil || slices.ContainsFunc(a.Members, func(m Member) bool { return m.Provider.Name() == name })
}

// fencedAt is a position of the log after the volume was opened for writing, if it was.
func (w *world) fencedAt(rng *rand.Rand) int {
	from := 0
	if len(w.ours) > 0 {
		from = w.ours[0].from
	}
	return from + rng.IntN(w.rec.Len()-from+1)
}

// opened is a world of disks that are opened only to be looked at.
func (r *writeless) opened(disks []*disktest.Disk) (*world, error) {
	w := r.w
	c := &world{seed: w.seed, cfg: w.cfg, counts: w.counts, disks: disks, size: w.size, sector: w.sector, chunk: w.chunk}
	c.cfg.serial, c.cfg.WhenFull = true, Fail
	var err error
	c.vol, err = openDisks(c.cfg, disks)
	return c, err
}

// without starts without the disk.
func (r *writeless) without(disks []*disktest.Disk, now *view) error {
	c, err := r.opened(slices.Delete(disks, r.i, r.i+1))
	if err != nil {
		return err
	}
	_, err = c.readAll(now)
	return errors.Join(err, c.vol.Close())
}

// backStale starts with the disk that left, when it takes writes.
func (r *writeless) backStale(disks []*disktest.Disk, now *view) error {
	back := disks[r.i]
	c, err := r.opened(disks)
	if err != nil {
		return err
	}
	_, err = c.readAll(now)
	if c.has(back.Name()) {
		err = errors.Join(err, errors.New("it is served"))
	}
	err = errors.Join(err, c.vol.Close())
	if written(back) {
		err = errors.Join(err, errors.New("it was written to"))
	}
	return err
}

// stillFails starts with the disk as a member that takes no writes: it is read, and gets
// no new chunk. Without component 0 there is nothing to start.
func (r *writeless) stillFails(disks []*disktest.Disk, now *view) error {
	var met atomic.Bool
	defer takesNone(disks[r.i], 1, &met)()
	if v := r.w.verb; v.offline || v.opens != openAlways {
		return nil
	}
	c, err := r.opened(disks)
	if err != nil {
		return r.named(err)
	}
	on := func() (n int) {
		return len(c.vol.chunksWhere(func(p alloc.Phys) bool { return c.vol.component(p.Comp).name() == r.name() }))
	}
	before := on()
	if _, err = c.readAll(now); err != nil {
		return errors.Join(err, c.vol.Close())
	}
	if c.has(r.name()) && !hasFailed(c.vol.Status().Components, r.name()) {
		return errors.Join(errors.New("it is not noted as failed"), c.vol.Close())
	}
	b := make([]byte, unit)
	for off := int64(0); off < min(c.size, c.vol.Size()); off += c.chunk {
		if !c.vol.chunks.Load(uint64(off / c.chunk)).Allocated() {
			_ = c.vol.do(OpWrite, 0, b, off, unit) // of space there may be none
		}
	}
	if n := on(); n > before {
		err = fmt.Errorf("it got %d new chunks", n-before)
	}
	_ = c.vol.Close() // says what fails
	return err
}

func TestAVerbBesideADiskThatTakesNoWritesAndTheDiskComesBack(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 2
	}
	var counts crashCounts
	t.Run("all", func(t *testing.T) {
		for _, v := range verbs {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				for seed := range seeds {
					if err := writelessRun(v, seed, &counts); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
	t.Log(&counts)
	if counts.writeless.Load() == 0 || counts.writelessAmid.Load() == 0 || counts.writelessLeft.Load() == 0 {
		t.Error("no disk failed, or none of them left")
	}
}

// TestRunsWithADiskThatTakesNoWritesThatOnceWentWrong: a job without room, a degraded
// volume and a map that finds no heir did not name the disk.
func TestRunsWithADiskThatTakesNoWritesThatOnceWentWrong(t *testing.T) {
	for seed, name := range map[uint64]string{
		3376870: "grow beyond the map's room", 3376871: "grow beyond the map's room in steps",
		3376899: "evacuate, cancelled, begun again", 3376902: "replace",
		3376905: "evacuate of a component 0 that takes no writes, after a restart",
		3377524: "activate",
	} {
		if err := writelessRun(verbNamed(name), seed, new(crashCounts)); err != nil {
			t.Error(err)
		}
	}
}
