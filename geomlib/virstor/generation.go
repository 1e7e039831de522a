package virstor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// generations is how far the volume's generations are (ondisk.MemberBlock).
type generations struct {
	highest        uint64 // that any member has, or may have
	settled, nonce uint64 // the last that is known to be on all members
	drawn          uint64 // by a serial volume
}

// rise is a rise of the generation.
type rise struct {
	// comps is the list of members as it is from now on, by index.
	comps []*component
	// joins are those of comps that are new: they are written before component 0.
	joins []*component
	// edit, if not nil, changes what a component's metadata says otherwise.
	edit func(c *component, m *ondisk.Metadata)
	// record, if not nil, is a change of component 0's record that is written with
	// the first step.
	record func(*ondisk.Extension)
	// recover: members that took no writes before are tried again.
	recover bool

	// Of riseLocked.
	v     *Volume
	index map[*component]int // of comps
	block ondisk.MemberBlock // that is being written
}

// notCommittedError is why a rise did not begin: no member was written to.
type notCommittedError struct{ err error }

func (e *notCommittedError) Error() string { return e.err.Error() }
func (e *notCommittedError) Unwrap() error { return e.err }

// riseLocked raises the generation by one, from the highest that any member may have, in
// two steps, each flushed: first the generation, its nonce and the list on all members,
// on those that join first, then on component 0, which commits, then on the rest; then
// that it is settled. Only when it has returned is the new list used.
//
// A member that takes no writes is noted as failed in component 0's record before the
// second step, and stays behind. That component 0 takes none is an error, after which it
// is not known which list is in force, unless it is a *notCommittedError. v.metaMu is
// held.
func (v *Volume) riseLocked(r rise) error {
	r.begin(v)
	zero := r.comps[0]
	if v.cfg.breaks(breakCommitFirst) {
		if err := r.write(zero); err != nil {
			return err
		}
	}
	if err := v.eachOf(r.joins, func(c *component) error {
		if c == zero {
			return nil
		}
		return r.write(c)
	}); err != nil {
		return &notCommittedError{err}
	}
	if err := r.commit(zero); err != nil {
		return err
	}
	v.cond.listed()
	rest := slices.DeleteFunc(slices.Clone(r.comps), func(c *component) bool { return c == zero || slices.Contains(r.joins, c) })
	if v.cfg.breaks(breakSettledEarly) {
		rest = nil
	}
	if err := r.writeRest(rest); err != nil {
		return err
	}
	v.meta.gen.settled, v.meta.gen.nonce = r.block.Generation, r.block.Nonce
	if v.cfg.breaks(breakListEarly) {
		return nil
	}
	return r.settle()
}

// begin draws what the rise writes. v.metaMu is held.
func (r *rise) begin(v *Volume) {
	r.v, r.index = v, make(map[*component]int, len(r.comps))
	list := r.list()
	v.meta.gen.highest++
	v.life.risen.Store(v.meta.gen.highest)
	r.block = ondisk.MemberBlock{
		Generation: v.meta.gen.highest, Settled: v.meta.gen.settled, SettledNonce: v.meta.gen.nonce,
		List: list, Began: v.now(), Nonce: v.draw(),
	}
}

// list gives comps the member ids that they miss and returns what makes their list.
func (r *rise) list() uint64 {
	ids := make([]uint64, len(r.comps))
	for i, c := range r.comps {
		if c.member == 0 {
			c.member = r.v.draw()
		}
		ids[i], r.index[c] = c.member, i
	}
	return ondisk.MemberList(ids)
}

// draw is a random number that is not 0. In a serial volume it depends on nothing but
// what the volume did. v.metaMu is held.
func (v *Volume) draw() uint64 {
	if v.cfg.serial {
		v.meta.gen.drawn++
		return rand.NewPCG(v.cfg.seed^uint64(v.id)<<32, v.meta.gen.highest<<16|v.meta.gen.drawn).Uint64() | 1
	}
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// now is the time in seconds since 1970; in a serial volume one that depends on nothing
// but what the volume did.
func (v *Volume) now() int64 {
	if v.cfg.serial {
		return int64(v.meta.gen.highest)
	}
	return time.Now().Unix()
}

// write writes component c with the block, and flushes it.
func (r *rise) write(c *component) error {
	m, zero, block := c.meta(), r.v.component(0).meta(), r.block
	m.Version, m.No, m.Count = ondisk.VersionFenced, uint16(r.index[c]), uint16(len(r.comps))
	m.VirtualSize, m.Name, m.ID = zero.VirtualSize, zero.Name, zero.ID
	block.ID, block.LastName = c.member, ondisk.MemberName(c.name())
	m.Member = block
	if r.edit != nil {
		r.edit(c, &m)
	}
	if err := geomlib.StoreMetadata(c.accounted(), m); err != nil {
		return err
	}
	c.setMeta(m)
	return nil
}

// commit writes component 0, with its record.
func (r *rise) commit(zero *component) error {
	v := r.v
	if r.record == nil || !v.meta.ext.room {
		return r.write(zero)
	}
	next := v.meta.ext.rec
	r.record(&next)
	next.Sequence++
	// One flush makes both durable: neither needs the other.
	if err := extblock.Put(zero.accounted(), v.meta.ext.offset, next); err != nil {
		v.meta.ext.rec.Sequence++
		return err
	}
	if err := r.write(zero); err != nil {
		v.meta.ext.rec.Sequence++
		return err
	}
	v.meta.ext.rec, v.meta.ext.valid = next, true
	return nil
}

// writeRest writes the members that are neither new nor component 0. Those that cannot
// be written are noted as failed. v.metaMu is held.
func (r *rise) writeRest(rest []*component) error {
	v := r.v
	var failed []*component
	var mu sync.Mutex
	err := v.eachOf(rest, func(c *component) error {
		if c.refused.Load() && !r.recover {
			return nil
		}
		err := r.write(c)
		if err != nil {
			err = r.write(c) // a path that fails over answers one request with an error
		}
		if err == nil || !c.meta().Member.Exists() {
			return err // without a block nobody could tell what it is
		}
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, c)
		v.log.Error("component takes no writes: it is read, and gets no new chunk; evacuate or replace it",
			"component", c.name(), "error", err)
		return nil
	})
	if failed == nil || err != nil {
		return err
	}
	return v.noteFailedLocked(failed, r.recover)
}

// noteFailedLocked names members as failed in component 0's record, with the generation
// that each has at least, so that one may be settled without them. read: what they say of
// themselves was read by this opening, maybe from a cache alone; what is settled is on the
// medium. v.metaMu is held.
func (v *Volume) noteFailedLocked(failed []*component, read bool) error {
	if v.cfg.breaks(breakFailedUnnoted) {
		for _, c := range failed {
			v.setRefused(c, true)
		}
		return nil
	}
	err := v.writeExtensionLocked(func(e *ondisk.Extension) {
		for _, c := range failed {
			has := c.meta().Member.Generation
			if read {
				has = min(has, v.meta.gen.settled)
			}
			v.addFailed(e, c, has)
		}
	})
	if err != nil {
		return fmt.Errorf("%s takes no writes, which cannot be noted: %w", failed[0].name(), err)
	}
	for _, c := range failed {
		if _, noted := v.meta.ext.rec.FailedSince(c.member); !noted {
			return fmt.Errorf("%s: more than %d components take no writes: %w", c.name(), ondisk.MaxFailedMembers, ErrTakesNoWrites)
		}
		v.setRefused(c, true)
	}
	return nil
}

func (v *Volume) isMember(id uint64) bool {
	return slices.ContainsFunc(v.components(), func(c *component) bool { return c.member == id })
}

// addFailed names c in e with the generation has, which it has at least, and reports
// whether there was room. Who is no member any more, and does not leave just now, makes room.
func (v *Volume) addFailed(e *ondisk.Extension, c *component, has uint64) bool {
	if _, known := e.FailedSince(c.member); known {
		return true
	}
	f := ondisk.FailedMember{ID: c.member, Generation: max(has, 1)}
	if addFailed(e, f) {
		return true
	}
	keepFailed(e, func(id uint64) bool { return id == e.Intent.Leaves || v.isMember(id) })
	return addFailed(e, f)
}

func addFailed(e *ondisk.Extension, f ondisk.FailedMember) bool {
	for i := range e.Failed {
		if e.Failed[i] == (ondisk.FailedMember{}) {
			e.Failed[i] = f
			return true
		}
	}
	return false
}

// keepFailed forgets the failed members that keep does not want.
func keepFailed(e *ondisk.Extension, keep func(id uint64) bool) {
	kept := e.Failed
	e.Failed = [ondisk.MaxFailedMembers]ondisk.FailedMember{}
	for _, f := range kept {
		if f.ID != 0 && keep(f.ID) {
			addFailed(e, f)
		}
	}
}

// setRefused notes that c takes no writes, or takes them again: nothing more is written
// to it, since what reached it and what did not could not be told apart by its
// generation.
func (v *Volume) setRefused(c *component, refused bool) {
	c.refused.Store(refused)
	if int(c.index()) < v.alloc.Len() {
		v.alloc.SetBar(c.index(), alloc.BarRefused, refused && !v.cfg.breaks(breakRefusedTakes))
	}
}

// settle notes on all members that the generation is on all of them. It is the volume's
// when component 0 says so.
func (r *rise) settle() error {
	v := r.v
	r.block.Settled, r.block.SettledNonce = r.block.Generation, r.block.Nonce
	for _, c := range r.comps {
		if c.refused.Load() && r.recover && c.meta().Member.Generation == r.block.Generation {
			v.setRefused(c, false)
		}
	}
	zero := r.comps[0]
	return v.eachOf(r.comps, func(c *component) error {
		if c.refused.Load() {
			return nil
		}
		err := r.write(c)
		if err != nil && c != zero {
			// It has the generation. If it takes no writes the next rise says so.
			v.log.Warn("component does not note that its generation is settled", "component", c.name(), "error", err)
			return nil
		}
		return err
	})
}

// eachOf runs do for each of comps, side by side but in a serial volume, and joins the
// errors.
func (v *Volume) eachOf(comps []*component, do func(*component) error) error {
	return errors.Join(v.eachErr(comps, do)...)
}

// eachErr is eachOf with the error of each, by its place in comps.
func (v *Volume) eachErr(comps []*component, do func(*component) error) []error {
	errs := make([]error, len(comps))
	if v.cfg.serial || len(comps) == 1 {
		for i, c := range comps {
			errs[i] = do(c)
		}
		return errs
	}
	const atOnce = 32
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, c := range comps {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = do(c)
			<-slots
		})
	}
	wg.Wait()
	return errs
}

// aDay is how often the generation of a volume in service rises, so that copies of
// components that were made in between can be told to be old.
const aDay = 24 * time.Hour

// RaiseGeneration raises the generation of a volume in service, which the volume does
// once a day. Copies of components that were made before it are stale after it.
func (v *Volume) RaiseGeneration() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.readOnly(); err != nil {
		return fmt.Errorf("raise the generation of %s: %w", v.name, err)
	}
	if err := v.cond.refusal(deedChangeMembers); err != nil {
		return fmt.Errorf("raise the generation of %s: %w", v.name, err)
	}
	if err := v.mayChangeLocked(); err != nil {
		return fmt.Errorf("raise the generation of %s: %w", v.name, err)
	}
	if err := v.riseLocked(rise{comps: v.components()}); err != nil {
		return fmt.Errorf("raise the generation of %s: %w", v.name, err)
	}
	v.emit(Event{Kind: EventGeneration})
	return nil
}

// Generation is the volume's generation and since when it is that; whoever serves the
// volume remembers the highest it has seen (Config.MinGeneration). 0: the volume has none,
// since it was never opened for writing.
func (v *Volume) Generation() (settled uint64, began time.Time) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	b := v.component(0).meta().Member
	if !b.Exists() {
		return 0, time.Time{}
	}
	return v.meta.gen.settled, time.Unix(b.Began, 0)
}

// startDaily has RaiseGeneration called once a day, until it is stopped.
func (v *Volume) startDaily() {
	if v.cfg.serial || v.cfg.ReadOnly || !v.life.writable.Load() {
		return
	}
	v.life.daily.Lock()
	defer v.life.daily.Unlock()
	if v.cond.is(stateClosing) {
		return
	}
	v.life.daily.timer = time.AfterFunc(aDay, func() {
		if err := v.RaiseGeneration(); err != nil && !errors.Is(err, ErrClosed) {
			v.log.Warn("the generation of the volume did not rise", "error", err)
		}
		v.startDaily()
	})
}

func (v *Volume) stopDaily() {
	v.life.daily.Lock()
	defer v.life.daily.Unlock()
	if v.life.daily.timer != nil {
		v.life.daily.timer.Stop()
	}
}
