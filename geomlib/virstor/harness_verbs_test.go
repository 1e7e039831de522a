package virstor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// verb is an operation of several writes, and a volume for it to be done to. It
// is interrupted at each of its writes and flushes, and then done again.
type verb struct {
	name       string
	components []int64 // of the volume, sizes in chunks
	spares     []int64 // other disks
	chunk      int64   // bytes; 0: the smallest
	virtual    int64   // chunks; 0: 32
	chunks     int64   // virtual ones that are written to before
	handedBack bool    // the volume was the kernel class's before
	fill       bool    // the order of allocation is Fill, whatever the seed

	// before prepares the open volume, damage the disks when it is closed.
	before, damage func(w *world) error
	// do does the verb from whatever an interruption left to its end, to the
	// open volume, or before it is opened when the verb is offline.
	do      func(w *world) error
	offline bool
	// end tells why the verb is not done. nil: what do returns tells enough.
	end func(w *world) error

	opens    opening
	id       uint32 // of the volume that the verb makes instead of the old one
	destroys bool   // afterwards there is no volume
	// alone: what the only component says before it leaves, and cannot be told to forget,
	// nobody gainsays who is not there. The host that served the volume remembers.
	alone bool
}

// opening is whether the volume must open without help in the middle of a verb.
type opening uint8

const (
	openAlways opening = iota
	openMaybe          // if it does it must hold what it should
	openNever          // it is damaged, and nobody is to open it before the verb is done
)

// newVerbWorld makes the volume that v is about. What v leaves open the seed
// decides. Nothing of that is to be interrupted.
func newVerbWorld(v *verb, seed uint64, cfg Config, counts *crashCounts) (*world, error) {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), cfg: cfg, counts: counts, verb: v,
		sector: 512, chunk: max(v.chunk, crashChunk)}
	if seed%3 == 1 && v.virtual == 0 { // whose map has steps of 512 chunks
		w.sector = 4096
	}
	if seed%2 == 1 && !v.fill {
		w.cfg.Alloc = Spread
	}
	w.cfg.WhenFull, w.cfg.Workers, w.cfg.serial = Fail, 2, true
	for i, size := range append(append([]int64(nil), v.components...), v.spares...) {
		// With no tail the last chunk would be the metadata's.
		tail := w.rng.Int64N(3) * int64(w.sector)
		d := disktest.New(fmt.Sprintf("d%d", i), size*w.chunk+tail, w.sector).SetBuffered(w.rng.IntN(2) == 0)
		if w.rng.IntN(3) > 0 {
			d.FillJunk(seed + uint64(i))
		}
		w.disks = append(w.disks, d)
	}
	if err := w.label(len(v.components), max(32, v.virtual), 77); err != nil {
		return nil, err
	}
	if err := w.prepare(); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return w, w.beginAnew()
}

// prepare fills the volume and does what the verb wants before.
func (w *world) prepare() (err error) {
	v := w.verb
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return err
	}
	for vc := range v.chunks {
		for range 2 {
			first, n := w.rng.Int64N(w.chunk/unit-8), 1+w.rng.Int64N(8)
			if err := w.change(vc*w.chunk/unit+first, n, OpWrite, 0); err != nil {
				return err
			}
		}
	}
	if v.before != nil {
		if err := v.before(w); err != nil {
			return err
		}
	}
	if v.handedBack {
		return w.vol.Stop()
	}
	return w.vol.Close()
}

// beginAnew makes what the disks hold the beginning of what is recorded.
func (w *world) beginAnew() (err error) {
	if w.vol, err = openDisks(Config{ReadOnly: true}, w.disks); err != nil {
		return err
	}
	base, err := w.readAll(w.model.at(w.rec.Len(), true))
	if err != nil {
		return err
	}
	if err := w.vol.Close(); err != nil {
		return err
	}
	for i, d := range w.disks {
		w.disks[i] = d.Clone()
	}
	if w.verb.damage != nil {
		if err := w.verb.damage(w); err != nil {
			return err
		}
	}
	w.model = w.model.goOn(nil)
	w.model.base = base
	if v := w.verb; v.id != 0 || v.destroys {
		w.old, w.model.base = w.model.at(0, true), nil
	}
	w.rec = disktest.Record(w.disks...)
	return nil
}

// verbRun does a verb to a volume, and makes every crash state of that.
func verbRun(v *verb, seed uint64, b breadth, cfg Config, counts *crashCounts) error {
	counts.runs.Add(1)
	w, err := newVerbWorld(v, seed, cfg, counts)
	if err == nil {
		err = w.wholeLife()
	}
	if err == nil {
		err = w.explore(b)
	}
	if err != nil {
		return fmt.Errorf("%s, seed %d: %w", v.name, seed, err)
	}
	return nil
}

// wholeLife opens the volume, does the verb, and closes the volume.
func (w *world) wholeLife() (err error) {
	if w.verb.offline {
		if err := w.verb.do(w); err != nil {
			return err
		}
		if w.verb.destroys {
			return w.verb.end(w)
		}
	}
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return err
	}
	w.fenced()
	err = w.live()
	open := w.vol != nil && !w.vol.cond.is(stateClosing) // else the verb failed at that
	if w.insists && open && w.comesOf(err) {
		w.vol.committer.expire() // a second passes
		// While it stays degraded a chunk may be locked for good.
		if !w.vol.cond.is(stateDegraded) {
			w.again = true
			if err = w.resumed(); err == nil || w.comesOf(err) { // of what failed, it may go on by itself
				err = w.live()
			}
			open = w.vol != nil && !w.vol.cond.is(stateClosing)
		}
	}
	if err != nil {
		if open {
			err = errors.Join(err, w.vol.Close())
		}
		return err
	}
	return w.endLife()
}

// comesOf reports whether err comes from the disk that fails: it is the disk's own, or a
// job has no room and says that this disk has some, which is not given.
func (w *world) comesOf(err error) bool {
	if isFailure(err) {
		return true
	}
	d := w.failing.Load()
	var short *ShortError
	return d != nil && errors.As(err, &short) &&
		slices.ContainsFunc(short.Refused, func(c RefusedComponent) bool { return c.Name == d.Name() })
}

// packed tells what of the data's layout a volume that was packed has not. That the disk
// which fails takes no writes is no fault of packing.
func (w *world) packed() error {
	for _, why := range w.vol.obstacles() {
		if d := w.failing.Load(); d == nil || !strings.HasPrefix(why, d.Name()+" takes no writes") {
			return errors.New(why)
		}
	}
	return nil
}

// waits reports whether the verb's job waits for a component that takes no writes.
func (w *world) waits() bool {
	if w.vol == nil || !w.vol.anyRefused() {
		return false
	}
	w.vol.metaMu.Lock()
	defer w.vol.metaMu.Unlock()
	return w.vol.meta.ext.rec.Task.Kind != ondisk.TaskNone
}

// heirless reports whether err is that component 0 cannot leave without a write, and true:
// clients' data has the first chunks of every other. That may be so when a disk failed
// before, since what would have gone there took the place of the map on the next one.
func (w *world) heirless(err error) bool {
	if !w.hadFailing || !errors.Is(err, ErrTakesNoWrites) {
		return false
	}
	reserved := w.vol.component(0).first()
	return !slices.ContainsFunc(w.vol.components()[1:], func(c *component) bool {
		taken := w.vol.chunksWhere(func(p alloc.Phys) bool { return p.Comp == c.index() && p.Chunk < reserved })
		return len(taken) == 0 && c.usable() > reserved
	})
}

// crowded reports whether err is that a job misses chunks, and true: it wants to empty a
// component that has just so many more than are free where they may go. That may be so
// when a disk failed before, and writes took the room that the job had left.
func (w *world) crowded(err error) bool {
	var short *ShortError
	if !w.hadFailing || !errors.As(err, &short) {
		return false
	}
	missing := short.Missing / w.chunk
	figures := w.vol.alloc.Figures()
	for _, from := range figures {
		here := int64(len(w.vol.chunksWhere(w.vol.onAny([]*component{from.Owner}))))
		everywhere := int64(0)
		for _, to := range figures {
			if to.Owner == from.Owner {
				continue
			}
			everywhere += int64(to.Free)
			if here-int64(to.Free) == missing {
				return true
			}
		}
		if here-everywhere == missing {
			return true
		}
	}
	return false
}

// doVerb does the verb among writes, of which some are not flushed when it begins.
func (w *world) doVerb() error {
	v := w.verb
	stays := false
	w.counts.ops.Add(1)
	if !v.offline {
		if w.vol.life.writable.Load() { // else they wait for an Activate that failed
			if err := w.someWrites(); err != nil {
				return err
			}
		}
		err := v.do(w)
		if stays = w.heirless(err) || w.crowded(err); err != nil && !stays && !(w.waits() && errors.Is(err, ErrNoSpace)) {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if stays && w.vol.Stranded() { // opened while d0 took no writes, which it takes now
			if err := w.reopen(false); err != nil {
				return err
			}
		}
	}
	if v.end != nil && !w.again && !w.waits() && !stays { // some of that is for the next start
		if err := v.end(w); err != nil {
			return fmt.Errorf("after %s: %w", v.name, err)
		}
	}
	if err := w.someWrites(); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.someWrites(); err != nil {
		return err
	}
	_, err := w.readAll(w.model.at(w.rec.Len(), true))
	return err
}

// someWrites overwrites a bit of an old chunk, and begins what may be one of a few
// new ones.
func (w *world) someWrites() error {
	per := w.chunk / unit
	for _, vc := range []int64{w.rng.Int64N(max(1, w.verb.chunks)), w.verb.chunks + w.rng.Int64N(2)} {
		if err := w.change(vc*per+w.rng.Int64N(per/8)*8, 8, OpWrite, 0); err != nil {
			return err
		}
	}
	return nil
}

// has reports whether a disk is a component of the open volume.
func (w *world) has(name string) bool {
	for _, c := range w.vol.components() {
		if c.name() == name {
			return true
		}
	}
	return false
}

func (w *world) disk(name string) *disktest.Disk {
	for _, d := range w.disks {
		if d.Name() == name {
			return d
		}
	}
	return nil
}

// must waits for a job that has to end well.
func (w *world) must(err error) error {
	if err != nil {
		return err
	}
	s, err := w.vol.WaitJob(context.Background())
	return errors.Join(err, s.Err)
}

// add makes disks components that are not yet.
func (w *world) add(names ...string) error {
	var ps []geomlib.Provider
	for _, n := range names {
		if !w.has(n) {
			ps = append(ps, w.disk(n))
		}
	}
	if ps == nil {
		return nil
	}
	return w.vol.Add(ps, AddOptions{})
}

// discardOn discards every chunk on a component.
func (w *world) discardOn(name string) error {
	return w.discardWhere(func(p alloc.Phys) bool { return w.vol.component(p.Comp).name() == name })
}

func (w *world) discardWhere(pick func(alloc.Phys) bool) error {
	for _, pl := range w.vol.chunksWhere(pick) {
		if err := w.change(int64(pl.vc)*w.chunk/unit, w.chunk/unit, OpDelete, 0); err != nil {
			return err
		}
	}
	return w.vol.Flush()
}

// evacuate empties the components that are still there, and removes them.
func (w *world) evacuate(target string, names ...string) error {
	var left []string
	for _, n := range names {
		if w.has(n) {
			left = append(left, n)
		}
	}
	if left == nil {
		return nil
	}
	return w.must(w.vol.Evacuate(left, target, JobOptions{}))
}

// replaceBy lets a disk take the place of a component, of which it is none before.
func (w *world) replaceBy(old, by string) error {
	if !w.has(old) {
		return nil
	}
	if w.has(by) {
		return w.evacuate(by, old)
	}
	return w.must(w.vol.Replace(old, w.disk(by), false, JobOptions{}))
}

// gone tells which of the disks are components, or labelled so, and which of the
// others are not.
func (w *world) gone(names ...string) error {
	for _, d := range w.disks {
		n := d.Name()
		if !slices.Contains(names, n) {
			if !w.has(n) {
				return fmt.Errorf("%s is no component any more", n)
			}
			continue
		}
		if w.has(n) {
			return fmt.Errorf("%s still is a component", n)
		}
		m, err := geomlib.ReadMetadata(d)
		if errors.Is(err, geomlib.ErrNoMetadata) {
			continue
		}
		if err != nil {
			return err
		}
		// Its label may have come back with a loss of power: nobody believes it.
		if !m.Member.Exists() || slices.ContainsFunc(w.vol.components(), func(c *component) bool { return c.member == m.Member.ID }) {
			return fmt.Errorf("%s is labelled as a component: %+v", n, m)
		}
	}
	return nil
}

// complete reports whether what is on disks makes a volume.
func complete(disks []*disktest.Disk) bool {
	var members []Member
	for _, d := range disks {
		if m, err := geomlib.ReadMetadata(d); err == nil {
			members = append(members, Member{d, m})
		}
	}
	as := Assemble(members)
	return len(as) == 1 && as[0].Err == nil
}

// nth calls f before the nth write to any disk from now on, once.
func (w *world) nth(n int, f func()) (remove func()) {
	var undo []func()
	var seen atomic.Int64
	for _, d := range w.disks {
		undo = append(undo, d.Inject(func(o disktest.Op) error {
			if o.Kind == disktest.Write && seen.Add(1) == int64(n) {
				f()
			}
			return nil
		}))
	}
	return func() {
		for _, u := range undo {
			u()
		}
	}
}

// cancelled starts a job and cancels it at its nth write.
func (w *world) cancelled(n int, start func() error) error {
	j := &w.vol.job
	remove := w.nth(n, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.cancel()
	})
	defer remove()
	if err := w.must(start()); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// closed starts a job, closes the volume at its nth write, and opens it again.
func (w *world) closed(n int, start func() error) error {
	v := w.vol
	held, cancelled := make(chan struct{}), make(chan struct{})
	remove := w.nth(n, func() {
		close(held)
		<-cancelled
	})
	ended := make(chan struct{})
	if err := start(); err != nil {
		remove()
		return err
	}
	go func() {
		defer close(ended)
		_, _ = v.WaitJob(context.Background())
	}()
	select {
	case <-held:
		j := &v.job
		j.mu.Lock()
		cancel := j.cancel
		j.cancel = func() {
			cancel()
			select {
			case <-cancelled:
			default:
				close(cancelled)
			}
		}
		j.mu.Unlock()
	case <-ended:
		remove()
		if s, _ := v.Job(); s.Err != nil {
			return s.Err
		}
	}
	w.mu.Lock()
	begun := w.rec.Mark("close begins")
	w.mu.Unlock()
	err := v.Close()
	remove()
	if err != nil {
		return fmt.Errorf("close in the middle: %w", err)
	}
	<-ended
	w.mu.Lock()
	w.model.flushes = append(w.model.flushes, flushed{begun, w.rec.Mark("closed")})
	w.mu.Unlock()
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		w.vol = nil
		return fmt.Errorf("open after closing in the middle: %w", err)
	}
	if s, _ := v.Job(); s.State == JobFailed { // before it could be interrupted
		return s.Err
	}
	return w.resumed()
}

func verbNamed(name string) *verb {
	for _, v := range verbs {
		if v.name == name {
			return v
		}
	}
	panic("no verb is named " + name)
}
