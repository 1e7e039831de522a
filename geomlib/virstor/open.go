package virstor

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Open opens an assembled volume. It reads and checks the whole map. Unless
// cfg says otherwise it finishes what was interrupted and fences the
// components from the kernel class. Of a volume that was not closed in order
// nothing is believed that may be in a cache alone: the map is read past the caches
// of the system, and is on the medium before Open returns. On success the volume
// owns the providers.
func Open(a *Assembly, cfg Config) (*Volume, error) {
	if a.Err != nil {
		return nil, a.Err
	}
	cfg.setDefaults()
	if err := a.refuseOld(cfg); err != nil {
		return nil, err
	}
	v, err := newVolume(a, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.ReadOnly || cfg.DeferWrites {
		if v, err = v.pastCaches(a); err != nil {
			return nil, err
		}
	}
	if err := v.recoverable(); err != nil {
		return nil, err
	}
	if cfg.ReadOnly || cfg.DeferWrites {
		if err := v.loadMap(); err != nil {
			return nil, err
		}
	} else {
		err := v.prepare()
		switch {
		case err == nil:
			v.cutForShrink()
			v.life.writable.Store(true)
		case v.mayStrand(err):
			if v, err = a.stranded(v, err); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	v.fitReserve()
	v.start()
	if v.life.writable.Load() {
		v.startLease(v.lease.Load())
	}
	v.startDaily()
	if v.life.writable.Load() || v.cond.is(stateStranded) {
		v.resumeTask()
	}
	return v, nil
}

// refuseOld refuses what is older than what this host has served, by cfg.
func (a *Assembly) refuseOld(cfg Config) error {
	switch {
	case cfg.ForceOld, cfg.breaks(breakOldSet):
		return nil
	case a.Settled < cfg.MinGeneration:
		return fmt.Errorf("%s: %w: generation %d of %s, this host has served %d of %s; take the newer components, or force it if these are right, which gives up all that was written since",
			ondisk.Printable(a.Name), ErrOldSet, a.Settled, began(a.Began), cfg.MinGeneration, began(cfg.MinBegan))
	case a.unproven != nil && cfg.MinGeneration > 0:
		// Handing back is noted before it begins, which forgets the generation.
		return fmt.Errorf("%s: %w: %s is of version 1, and no handing back has begun here; take the newer component, or force it if it is right",
			ondisk.Printable(a.Name), ErrOldSet, ondisk.Printable(strings.Join(a.unproven, ", ")))
	}
	return nil
}

// began is when a generation began, in words.
func began(t time.Time) string {
	if t.IsZero() {
		return "no known time"
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

// newVolume makes the volume of an assembly, of which nothing is read yet.
func newVolume(a *Assembly, cfg Config) (*Volume, error) {
	zero := a.Members[0]
	m, name := zero.Metadata, ondisk.Printable(zero.Metadata.Name)
	v := &Volume{
		cfg: cfg, log: cfg.Log.With("volume", name),
		geometry: geometry{
			id: m.ID, name: name,
			chunk:      int64(m.ChunkSize),
			chunkShift: shiftOf(m.ChunkSize),
			sector:     int64(zero.Provider.SectorSize()),
		},
		space:   space{inlineLimit: inlineLimit(runtime.NumCPU()), zeroesReach: zeroesReach},
		queues:  queues{zeros: zeroBytes[:]},
		meta:    meta{ext: a.ext},
		traffic: traffic{opened: time.Now(), idle: make(chan struct{})},
	}
	v.lease.Store(cfg.Lease)
	if err := v.takeMembers(a); err != nil {
		return nil, err
	}
	v.adopt(a)
	v.alloc = alloc.New[*component](cfg.Alloc == Spread, max(0, cfg.Reserve))
	v.reserve.auto = cfg.Reserve == ReserveAuto
	v.cond.broken = cfg.breaks(breakConditions)
	v.full.Store(&fullRule{cfg.WhenFull, cfg.FullTimeout})
	v.freed.v, v.flushSoon.v = v, v
	v.freed.stopped.L = &v.freed.mu
	v.moving, v.viewing = newBarrier(), newBarrier()
	v.sectors = newSectorPool(v.sector)
	v.waiters = &sync.Pool{New: newWaiter}
	v.flushPool = &sync.Pool{New: func() any { return new(flushJobs) }}
	v.copies = &sync.Pool{New: func() any { b := make([]byte, min(1<<20, m.ChunkSize)); return &b }}
	v.setUp(v, ondisk.PoolMap{ID: ondisk.FirstMap}, int64(m.VirtualSize), m.Entries())
	if !cfg.serial {
		v.ahead = newZeroAhead(v)
	}
	return v, nil
}

// takeMembers makes the members of the assembly components, whose metadata must fit the
// volume.
func (v *Volume) takeMembers(a *Assembly) error {
	zero := a.Members[0].Metadata
	var comps []*component
	for i, mem := range a.Members {
		if s := int64(mem.Provider.SectorSize()); s != v.sector {
			return fmt.Errorf("%s: %w: %d on %s, %d on %s", v.name, ErrSectorSize,
				s, mem.Provider.Name(), v.sector, a.Members[0].Provider.Name())
		}
		md := mem.Metadata
		if md.ChunkSize != zero.ChunkSize {
			return fmt.Errorf("%s: %w: chunks of %d bytes on %s, %d on %s", v.name, ErrDamaged,
				md.ChunkSize, mem.Provider.Name(), zero.ChunkSize, a.Members[0].Provider.Name())
		}
		// Component 0 decides; stale counts and sizes are mended by the fence.
		md.No, md.Count, md.VirtualSize, md.Name = uint16(i), zero.Count, zero.VirtualSize, zero.Name
		if err := md.Validate(mem.Provider.MediaSize(), int(v.sector)); err != nil && !errors.Is(err, ondisk.ErrLastSector) {
			return fmt.Errorf("%s: %w: metadata of %s: %w", v.name, ErrDamaged, mem.Provider.Name(), err)
		}
		md.No, md.Count, md.VirtualSize, md.Name = mem.Metadata.No, mem.Metadata.Count, mem.Metadata.VirtualSize, mem.Metadata.Name
		if err := noLoop(v.id, v.name, mem.Provider); err != nil {
			return err
		}
		c := v.newComponent(mem.Provider, md)
		c.setIndex(uint16(i))
		comps = append(comps, c)
	}
	for _, i := range a.Failed {
		comps[i].refused.Store(true)
	}
	comps[0].ledger.Store(&mapLedger{v: v})
	v.setComponents(comps)
	return nil
}

// adopt takes over what the assembly found out about generations and outsiders.
func (v *Volume) adopt(a *Assembly) {
	defer func() { v.life.risen.Store(v.meta.gen.highest) }()
	v.meta.gen = generations{highest: max(a.highest, a.Above, v.cfg.MinGeneration), settled: a.Settled, nonce: a.nonce}
	for _, ig := range a.Ignored {
		var o *OutsiderError
		if errors.As(ig.Reason, &o) {
			v.outside.add(*o)
		}
		if errors.Is(ig.Reason, ErrLeaving) || errors.Is(ig.Reason, errBeingRemoved) || errors.Is(ig.Reason, ErrInterruptedAdd) {
			v.meta.leavers = append(v.meta.leavers, ig)
		}
	}
	if i := v.meta.ext.rec.Intent; i.Kind == ondisk.IntentRemove {
		if removed, last := removeArgs(i); removed < last && int(last) >= len(a.Members) {
			v.renamed.from, v.renamed.to = int(last), int(removed)
		}
	}
}

// flushInherited flushes what an earlier process may have left in the components'
// caches when it died: its writes were acknowledged, so the flushes of this one
// cover them, and the map, which is read through the caches, is what this one
// builds on.
//
// A member that cannot be flushed after a closing in order has lost nothing: if it takes
// no writes, the fence finds that out and goes on without it. Otherwise it may have lost
// what was acknowledged. Of one that is known to take no writes, that is told at each
// flush; one that was healthy is noted to be no more, and this opening is refused, so
// that somebody learns of it. Nothing goes on without component 0.
func (v *Volume) flushInherited(orderly bool) error {
	var lost []*component
	var refusal error
	comps := v.components()
	errs := v.eachErr(comps, (*component).flushNow)
	for i, c := range comps {
		// That one failed before is no error of this: clients were told, and are told
		// again at each flush of theirs.
		err := errs[i]
		switch {
		case err == nil:
		case i == 0 || !c.meta().Member.Exists():
			return fmt.Errorf("open %s: %w: %s: %w", v.name, ErrFlushFailed, c.name(), err)
		case orderly || c.refused.Load():
			v.log.Warn("component cannot be flushed", "component", c.name(), "error", err)
		default:
			lost = append(lost, c)
			refusal = errors.Join(refusal, fmt.Errorf("open %s: %w: %s, which may have lost what was written last: %w", v.name, ErrFlushFailed, c.name(), err))
		}
	}
	if lost == nil {
		return nil
	}
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.noteFailedLocked(lost, true); err != nil {
		return errors.Join(refusal, err)
	}
	return fmt.Errorf("%w; it is noted to take no writes: the next start serves the volume without writing to it", refusal)
}

// forgiveFlushes lets flushes go on after an opening beside members that could not be
// flushed, of a volume that was closed in order.
func (v *Volume) forgiveFlushes() {
	for _, c := range v.components()[1:] {
		c.forgive()
	}
}

// start starts the goroutines, which Close stops. A serial volume has none.
func (v *Volume) start() {
	if v.cfg.serial {
		v.workers, v.writers, v.passDowns = startWorkers(0), startWorkers(0), startWorkers(0)
		for _, h := range v.heads() {
			close(h.committer.done)
		}
		return
	}
	v.workers = startWorkers(v.cfg.Workers)
	v.writers = startWorkers(max(1, v.cfg.Workers/4))
	v.passDowns = startWorkers(1)
	for _, h := range v.heads() {
		go h.committer.loop()
	}
	v.ahead.start()
}
