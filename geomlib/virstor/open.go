package virstor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Open opens an assembled volume. It reads and checks the whole map. Unless
// cfg says otherwise it then finishes what was interrupted and fences the
// components from the kernel class. On success the volume owns the providers.
func Open(a *Assembly, cfg Config) (*Volume, error) {
	if a.Err != nil {
		return nil, a.Err
	}
	cfg.setDefaults()
	v, err := newVolume(a, cfg)
	if err != nil {
		return nil, err
	}
	if err := v.recoverable(); err != nil {
		return nil, err
	}
	if !cfg.ReadOnly && !cfg.DeferWrites {
		if err := v.flushInherited(); err != nil {
			return nil, err
		}
		if err := v.finishIntent(a); err != nil {
			return nil, err
		}
	}
	if err := v.loadMap(); err != nil {
		return nil, err
	}
	if !cfg.ReadOnly && !cfg.DeferWrites {
		if err := v.fence(); err != nil {
			return nil, err
		}
		v.clearLeftovers(a)
		v.cutForShrink()
		v.writable.Store(true)
	}
	v.start()
	if v.writable.Load() {
		v.resumeTask()
	}
	return v, nil
}

func newVolume(a *Assembly, cfg Config) (*Volume, error) {
	zero := a.Members[0]
	m := zero.Metadata
	v := &Volume{
		id: m.ID, name: m.Name, cfg: cfg, log: cfg.Log,
		chunk:       int64(m.ChunkSize),
		chunkShift:  shiftOf(m.ChunkSize),
		sector:      int64(zero.Provider.SectorSize()),
		ext:         a.ext,
		zeros:       zeroBytes[:],
		idle:        make(chan struct{}),
		inlineLimit: inlineLimit(runtime.NumCPU()),
		opened:      time.Now(),
	}
	var comps []*component
	for i, mem := range a.Members {
		if s := int64(mem.Provider.SectorSize()); s != v.sector {
			return nil, fmt.Errorf("%s: %w: %d on %s, %d on %s", v.name, ErrSectorSize,
				s, mem.Provider.Name(), v.sector, zero.Provider.Name())
		}
		md := mem.Metadata
		if md.ChunkSize != m.ChunkSize {
			return nil, fmt.Errorf("%s: %w: chunks of %d bytes on %s, %d on %s", v.name, ErrDamaged,
				md.ChunkSize, mem.Provider.Name(), m.ChunkSize, zero.Provider.Name())
		}
		// Component 0 decides; stale counts and sizes are mended by the fence.
		md.No, md.Count, md.VirtualSize, md.Name = uint16(i), m.Count, m.VirtualSize, m.Name
		if err := md.Validate(mem.Provider.MediaSize(), int(v.sector)); err != nil && !errors.Is(err, ondisk.ErrLastSector) {
			return nil, fmt.Errorf("%s: %w: metadata of %s: %w", v.name, ErrDamaged, mem.Provider.Name(), err)
		}
		md.No, md.Count, md.VirtualSize, md.Name = mem.Metadata.No, mem.Metadata.Count, mem.Metadata.VirtualSize, mem.Metadata.Name
		c := newComponent(mem.Provider, md, v.log, v)
		c.setNo(uint16(i))
		comps = append(comps, c)
	}
	comps[0].zero.Store(true)
	v.setComponents(comps)
	v.size.Store(int64(m.VirtualSize))
	v.chunks = newChunkMap(m.Entries())
	v.alloc.order, v.alloc.reserve = cfg.Alloc, cfg.Reserve
	v.held.limit = cfg.HeldLimit
	v.full.Store(&fullRule{cfg.WhenFull, cfg.FullTimeout})
	v.freed.v, v.flushSoon.v = v, v
	v.freed.stopped.L = &v.freed.mu
	v.partial = newPartialDiscards(v.chunk, v.sector)
	v.sectors = newSectorPool(v.sector)
	v.waiters.New = newWaiter
	v.flushPool.New = func() any { return new(flushJobs) }
	v.committer = newCommitter(v)
	return v, nil
}

// flushInherited flushes what an earlier process may have left in the components'
// caches when it died: its writes were acknowledged, so the flushes of this one
// cover them, and the map, which is read through the caches, is what this one
// builds on.
func (v *Volume) flushInherited() error {
	for _, c := range v.components() {
		c.markDirty()
		if err := c.flush(); err != nil {
			return fmt.Errorf("open %s: %w", v.name, err)
		}
	}
	return nil
}

// start starts the goroutines, which Close stops. A serial volume has none.
func (v *Volume) start() {
	if v.cfg.serial {
		v.workers, v.writers = startWorkers(0), startWorkers(0)
		close(v.committer.done)
		return
	}
	v.workers = startWorkers(v.cfg.Workers)
	v.writers = startWorkers(max(1, v.cfg.Workers/4))
	go v.committer.loop()
}

// mapError is damage at one entry of the map.
func (v *Volume) mapError(vc uint64, format string, args ...any) error {
	return fmt.Errorf("%s: %w: map entry of virtual chunk %d %s; see `gvirstor check`", v.name, ErrDamaged,
		vc, fmt.Sprintf(format, args...))
}

// loadMap reads the map from component 0 and builds from it what is free. An
// entry that cannot be right fails it.
func (v *Volume) loadMap() error {
	for _, c := range v.components() {
		v.alloc.addPool(newChunkPool(c.first(), c.usable()))
	}
	comps := v.bounds()
	pieces, stop := v.readMap()
	defer stop()
	for m := range pieces {
		if m.err != nil {
			return fmt.Errorf("%s: read the allocation map from %s: %w", v.name, v.component(0).name(), m.err)
		}
		if err := v.loadEntries(m.b, uint64(m.off/ondisk.EntrySize), comps); err != nil {
			return err
		}
		m.free <- m.b[:cap(m.b)]
	}
	v.alloc.recount()
	if v.order == ondisk.OrderUnknown {
		v.order = ondisk.LittleEndian
	}
	return nil
}

// bounds are what a map entry may name of one component.
type bounds struct {
	first, count, usable uint32
	pool                 *chunkPool
}

func (v *Volume) bounds() []bounds {
	var bs []bounds
	for i, c := range v.components() {
		bs = append(bs, bounds{c.first(), c.meta().ChunkCount, c.usable(), v.alloc.pools[i]})
	}
	return bs
}

// loadEntries takes in the entries in b, the first of which is that of vc. Nobody
// else knows the map yet.
func (v *Volume) loadEntries(b []byte, vc uint64, comps []bounds) error {
	var page *[pageEntries]uint64
	at := ^uint64(0) // the page's number
	loaded := int64(0)
	for ; len(b) >= ondisk.EntrySize; b, vc = b[ondisk.EntrySize:], vc+1 {
		raw := binary.NativeEndian.Uint64(b)
		if raw == 0 {
			continue
		}
		if v.order == ondisk.OrderUnknown {
			v.order = ondisk.DetectOrder(b[:ondisk.EntrySize])
		}
		e := ondisk.DecodeEntry(b, v.order)
		if !e.Allocated() {
			if e.Flags != 0 {
				return v.mapError(vc, "has unknown flags %#x", e.Flags)
			}
			// The kernel class looks at these too, and refuses the map.
			if int(e.Component) >= len(comps) || e.Chunk >= comps[e.Component].count {
				v.litter = true
			}
			continue
		}
		if e.Flags != ondisk.FlagAllocated {
			return v.mapError(vc, "has unknown flags %#x", e.Flags)
		}
		if int(e.Component) >= len(comps) {
			return v.mapError(vc, "names component %d of %d", e.Component, len(comps))
		}
		c := &comps[e.Component]
		if e.Chunk < c.first || e.Chunk >= c.count {
			return v.mapError(vc, "names chunk %d of %s, which has %d to %d", e.Chunk, v.component(e.Component).name(), c.first, c.count-1)
		}
		// The kernel class may have allocated the chunk that holds the metadata
		// sector; it is served, but for that sector, and not in any pool.
		if e.Chunk < c.usable && !c.pool.claim(e.Chunk) {
			return v.mapError(vc, "names chunk %d of %s, which another virtual chunk has", e.Chunk, v.component(e.Component).name())
		}
		if vc>>pageShift != at {
			at = vc >> pageShift
			page = v.chunks.page(vc).plain()
		}
		page[vc%pageEntries] = wordOf(phys{e.Component, e.Chunk})
		loaded++
	}
	v.stats.allocated.Add(loaded)
	return nil
}

// recount makes free agree with the pools after claims.
func (a *allocator) recount() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = 0
	for _, p := range a.pools {
		if !p.closed {
			a.free += int64(p.free)
		}
	}
}
