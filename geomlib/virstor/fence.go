package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// fence keeps the kernel class away: version 2 on every component, flushed,
// before the first write of data. It finishes a fence that was
// interrupted and mends what an interrupted add left stale.
func (v *Volume) fence() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	comps := v.components()
	zero := comps[0]
	if zero.meta().Version != ondisk.VersionFenced || !v.ext.valid {
		// Whatever lies in the block at version 1 means nothing.
		e, err := blankExtension(zero)
		if err != nil {
			return err
		}
		if err := resetExtension(zero.accounted(), &e); err != nil {
			return fmt.Errorf("fence %s: %w", v.name, err)
		}
		v.ext = e
	} else if v.ext.rec.Clean {
		if err := v.writeExtensionLocked(func(e *ondisk.Extension) { e.Clean = false }); err != nil {
			return fmt.Errorf("fence %s: %w", v.name, err)
		}
	}
	for i, c := range comps {
		want := agreed(comps, i)
		want.Version = ondisk.VersionFenced
		want.ChunkCount = v.safeChunkCount(c)
		if want == c.meta() {
			continue
		}
		if err := geomlib.StoreMetadata(c.accounted(), want); err != nil {
			return fmt.Errorf("fence %s: %w", v.name, err)
		}
		c.setMeta(want)
	}
	return nil
}

// agreed is the metadata of component i with what all have in common, which an
// add, remove or resize could fail to write to it.
func agreed(comps []*component, i int) ondisk.Metadata {
	m, zero := comps[i].meta(), comps[0].meta()
	m.No, m.Count = uint16(i), uint16(len(comps))
	m.VirtualSize, m.Name = zero.VirtualSize, zero.Name
	return m
}

func blankExtension(zero *component) (extension, error) {
	e := extension{rec: ondisk.Extension{VolumeID: zero.meta().ID, ChunkSize: zero.meta().ChunkSize}}
	e.offset, e.room = ondisk.ExtensionOffset(zero.meta())
	return e, nil
}

// safeChunkCount is c's number of chunks without one that reaches into the
// metadata sector, unless data lies in that one already.
func (v *Volume) safeChunkCount(c *component) uint32 {
	n := c.usable()
	if n < c.meta().ChunkCount && v.lastSectorInUse(c) {
		return c.meta().ChunkCount
	}
	return n
}

// lastSectorInUse reports whether a virtual chunk lies on the chunk that reaches
// into c's metadata sector.
func (v *Volume) lastSectorInUse(c *component) bool {
	if c.meta().ChunkCount == c.usable() {
		return false
	}
	n := uint64(v.Size() / v.chunk)
	for vc := v.chunks.nextAllocated(0, n); vc < n; vc = v.chunks.nextAllocated(vc+1, n) {
		if p := physOf(v.chunks.load(vc)); p.comp == c.no() && p.chunk >= c.usable() {
			return true
		}
	}
	return false
}

// Activate makes a volume writable that was opened with DeferWrites. providers,
// by index, replace those it was opened with; nil keeps them. The
// caller has made sure that no write is under way elsewhere.
func (v *Volume) Activate(providers []geomlib.Provider) error {
	if v.writable.Load() {
		return nil
	}
	if providers != nil {
		comps := v.components()
		if len(providers) != len(comps) {
			return fmt.Errorf("activate %s: %d providers for %d components: %w", v.name, len(providers), len(comps), ErrRequest)
		}
		for i, c := range comps {
			old := c.p()
			if providers[i].MediaSize() != old.MediaSize() || providers[i].SectorSize() != old.SectorSize() {
				return fmt.Errorf("activate %s: %s is not %s: %w", v.name, providers[i].Name(), old.Name(), ErrRequest)
			}
		}
		next := make([]*component, len(comps))
		for i, c := range comps {
			next[i] = newComponent(providers[i], c.meta(), v.log, v)
			next[i].setNo(uint16(i))
		}
		next[0].zero.Store(true)
		v.setComponents(next)
	}
	if err := v.takeOver(); err != nil {
		return err
	}
	v.cutForShrink()
	v.parked.mu.Lock()
	v.writable.Store(true)
	reqs := v.parked.reqs
	v.parked.reqs = nil
	v.parked.mu.Unlock()
	for _, r := range reqs {
		v.workers.put(r)
	}
	v.resumeTask()
	v.catchUp()
	return nil
}
