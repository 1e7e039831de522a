package virstor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// fence keeps the kernel class away: version 2 on every component, to component 0 first,
// flushed, before the first write of data, with a new generation. It finishes what was
// interrupted and mends what an interrupted add or resize left stale.
func (v *Volume) fence() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.fenceLocked(); err != nil {
		return fmt.Errorf("fence %s: %w", v.name, err)
	}
	return nil
}

func (v *Volume) fenceLocked() error {
	comps := v.components()
	zero := comps[0]
	switch {
	case zero.meta().Version != ondisk.VersionFenced || !v.meta.ext.valid:
		// Whatever lies in the block at version 1 means nothing.
		e, err := blankExtension(zero)
		if err != nil {
			return err
		}
		if err := resetExtension(zero.accounted(), &e); err != nil {
			return err
		}
		v.meta.ext = e
	case !zero.meta().Member.Exists():
		// Earlier releases, which know no members, refuse what a record of this
		// version is on.
		if err := v.writeExtensionLocked(func(*ondisk.Extension) {}); err != nil {
			return err
		}
	}
	if !v.meta.ext.room {
		v.log.Warn("the label left no room for the extension block: earlier releases do not refuse the volume, and no component can leave that takes no writes")
	}
	if v.cfg.breaks(breakNoRise) && zero.meta().Member.Exists() {
		return v.writeExtensionLocked(func(e *ondisk.Extension) { e.Clean = false })
	}
	err := v.riseLocked(rise{
		comps:   comps,
		edit:    v.countSafely,
		record:  func(e *ondisk.Extension) { e.Clean = false },
		recover: true,
	})
	if err != nil {
		return err
	}
	return v.endIntentLocked()
}

// agreed is the metadata of component i with what all have in common, which an
// add, remove or resize could fail to write to it.
func agreed(comps []*component, i int) ondisk.Metadata {
	m, zero := comps[i].meta(), comps[0].meta()
	m.No, m.Count = uint16(i), uint16(len(comps))
	m.VirtualSize, m.Name, m.ID = zero.VirtualSize, zero.Name, zero.ID
	return m
}

func blankExtension(zero *component) (extension, error) {
	e := extension{rec: ondisk.Extension{VolumeID: zero.meta().ID, ChunkSize: zero.meta().ChunkSize}}
	e.offset, e.room = ondisk.ExtensionOffset(zero.meta())
	return e, nil
}

// countSafely makes m, metadata of c, count no chunk that reaches into the metadata sector,
// unless data lies in that one already.
func (v *Volume) countSafely(c *component, m *ondisk.Metadata) {
	m.ChunkCount = c.usable()
	if m.ChunkCount < c.meta().ChunkCount && v.lastSectorInUse(c) {
		m.ChunkCount = c.meta().ChunkCount
	}
	m.ChunkNext = min(m.ChunkNext, m.ChunkCount)
}

// lastSectorInUse reports whether a virtual chunk lies on the chunk that reaches
// into c's metadata sector, or did in a snapshot.
func (v *Volume) lastSectorInUse(c *component) bool {
	if c.meta().ChunkCount == c.usable() {
		return false
	}
	reaches := func(w chunkmap.Word) bool { p := w.Phys(); return p.Comp == c.index() && p.Chunk >= c.usable() }
	n := uint64(v.Size() / v.chunk)
	for vc := v.chunks.NextAllocated(0, n); vc < n; vc = v.chunks.NextAllocated(vc+1, n) {
		if reaches(v.chunks.Load(vc)) {
			return true
		}
	}
	for _, h := range v.heads() {
		if h.chunks.AnyKept(reaches) {
			return true
		}
	}
	for _, h := range v.further() {
		found := false
		h.eachWord(func(_ uint64, p alloc.Phys) bool {
			found = reaches(chunkmap.WordOf(p))
			return !found
		})
		if found {
			return true
		}
	}
	return false
}

// Activate makes a volume writable that was opened with DeferWrites. providers,
// by index, replace those it was opened with; nil keeps them. They are the volume's
// when Providers names them, also if Activate fails then, and those that they replaced stay
// open for as long as they do. The caller has made sure that no write is under way
// elsewhere.
func (v *Volume) Activate(providers []geomlib.Provider) error {
	v.life.activating.Lock()
	defer v.life.activating.Unlock()
	if v.life.writable.Load() || v.cond.is(stateStranded) {
		return nil
	}
	if v.cond.is(stateClosing) {
		return fmt.Errorf("activate %s: %w", v.name, ErrClosed)
	}
	if providers != nil {
		comps := v.components()
		if len(providers) != len(comps) {
			return fmt.Errorf("activate %s: %d providers for %d components: %w", v.name, len(providers), len(comps), ErrRequest)
		}
		for i, c := range comps {
			old := c.prov()
			if providers[i].MediaSize() != old.MediaSize() || providers[i].SectorSize() != old.SectorSize() {
				return fmt.Errorf("activate %s: %s is not %s: %w", v.name, providers[i].Name(), old.Name(), ErrRequest)
			}
		}
		next := make([]*component, len(comps))
		for i, c := range comps {
			next[i] = v.newComponent(providers[i], c.meta())
			if old := c.prov(); old != providers[i] {
				next[i].before = old
			}
			next[i].setIndex(uint16(i))
			next[i].refused.Store(c.refused.Load())
		}
		next[0].ledger.Store(&mapLedger{v: v})
		v.setComponents(next)
		v.setFurther(v.further())
		v.alloc.Hold(next)
	}
	if err := v.takeOver(); err != nil {
		if !v.mayStrand(err) {
			return err
		}
		if err := v.strandActivated(err); err != nil {
			return err
		}
		v.resumeTask()
		v.catchUp()
		return nil
	}
	v.cutForShrink()
	v.life.untilActive.mu.Lock()
	v.life.writable.Store(true)
	reqs := v.life.untilActive.reqs
	v.life.untilActive.reqs = nil
	v.life.untilActive.mu.Unlock()
	for _, r := range reqs {
		v.workers.put(r)
	}
	v.startLease(v.lease.Load())
	v.startDaily()
	v.resumeTask()
	v.catchUp()
	return nil
}

// strandActivated makes a volume one that is only read when taking it over ended with
// err. What is in memory must be what the medium has.
func (v *Volume) strandActivated(err error) error {
	if e := v.dropCaches(); e != nil {
		return errors.Join(err, e)
	}
	if e := v.mapUnchanged(); e != nil {
		return errors.Join(err, e)
	}
	v.life.untilActive.mu.Lock()
	e := v.beStranded(err)
	reqs := v.life.untilActive.reqs
	v.life.untilActive.reqs = nil
	v.life.untilActive.mu.Unlock()
	for _, r := range reqs {
		v.workers.put(r)
	}
	return e
}

// unchanged compares what was read before the components were opened for writing with
// what they hold now: somebody else may have had them in between.
func (v *Volume) unchanged() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	for _, c := range v.components() {
		m, err := geomlib.ReadMetadata(c.prov())
		if err != nil {
			return err
		}
		if m != c.meta() {
			return fmt.Errorf("%w: the metadata of %s", ErrChanged, c.name())
		}
	}
	zero := v.component(0)
	if zero.meta().Version == ondisk.VersionFenced {
		e, err := readExtension(zero.prov(), zero.meta())
		if err != nil {
			return err
		}
		if e != v.meta.ext {
			return fmt.Errorf("%w: the extension block of %s", ErrChanged, zero.name())
		}
	}
	return v.mapUnchanged()
}

// mapUnchanged compares the map on component 0 with that in memory.
func (v *Volume) mapUnchanged() error {
	var allocated int64
	err := v.mapReader().Each(func(p *mapio.Piece) error {
		for i := 0; i < len(p.B); i += ondisk.EntrySize {
			e, vc := ondisk.DecodeEntry(p.B[i:], v.order), uint64((p.Off+int64(i))/ondisk.EntrySize)
			if v.renamed.from > 0 && int(e.Component) == v.renamed.from {
				e.Component = uint16(v.renamed.to)
			}
			word := v.chunks.Load(vc)
			if e.Allocated() != word.Allocated() || e.Allocated() && word.Phys() != (alloc.Phys{Comp: e.Component, Chunk: e.Chunk}) {
				return fmt.Errorf("%w: the map entry of virtual chunk %d", ErrChanged, vc)
			}
			if e.Allocated() {
				allocated++
			}
		}
		return nil
	})
	if err == nil && allocated != v.allocated.Load() {
		err = fmt.Errorf("%w: %d chunks are allocated, %d were", ErrChanged, allocated, v.allocated.Load())
	}
	for _, h := range v.further() {
		if err == nil && h.damage == nil {
			err = h.mapUnchanged()
		}
	}
	return err
}

// mapUnchanged compares the map of a further volume with that in memory.
func (h *Head) mapUnchanged() error {
	v := h.v
	return h.eachPart(func(part mapPart, vc uint64, b []byte) error {
		had, err := v.readSystem(part.at, int64(len(b)))
		if err == nil && !bytes.Equal(had, b) {
			err = fmt.Errorf("%w: the map of %s from virtual chunk %d on", ErrChanged, h.Name(), vc)
		}
		return err
	})
}

// eachPart gives the chunks of the map of a further volume, each with what they hold by
// what is in memory, in whole sectors, from virtual chunk vc on.
func (h *Head) eachPart(do func(part mapPart, vc uint64, b []byte) error) error {
	buf := make([]byte, min(h.v.chunk, h.mapBytes()))
	for i, part := range h.stored().parts {
		b := buf[:min(h.v.chunk, h.mapBytes()-int64(i)*h.v.chunk)]
		first := uint64(i) * uint64(h.v.chunk/ondisk.EntrySize)
		for at := 0; at < len(b); at += ondisk.EntrySize {
			h.encodeEntry(b[at:], h.chunks.Load(first+uint64(at/ondisk.EntrySize)))
		}
		if err := do(part, first, b); err != nil {
			return err
		}
	}
	return nil
}

// FinishInterrupted does to the disks what opening a volume for writing does and what
// closing it does, and serves nothing: an interrupted operation is finished, the
// components are fenced and their metadata made to agree, and with handBack the
// volume is then handed to the kernel class, if it could go on with it. If it
// could not, the error is a *NotHandedBackError and all else is done. A job that
// was interrupted is not resumed. The providers stay the caller's.
func FinishInterrupted(a *Assembly, handBack bool, log *slog.Logger) error {
	return finishInterrupted(a, handBack, Config{Log: log}, func(*Volume) error { return nil })
}

// finishInterrupted is FinishInterrupted with a change of the open volume, whose metaMu is held.
func finishInterrupted(a *Assembly, handBack bool, cfg Config, change func(*Volume) error) error {
	if a.Err != nil {
		return a.Err
	}
	cfg.setDefaults()
	v, err := newVolume(a, cfg)
	if err != nil {
		return err
	}
	if err := v.prepare(); err != nil {
		return err
	}
	v.life.writable.Store(true)
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := change(v); err != nil {
		return err
	}
	if !handBack {
		return v.markCleanLocked()
	}
	kept, err := v.handBackLocked()
	if err != nil {
		return err
	}
	return kept
}
