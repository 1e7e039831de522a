package virstor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// cellsOf says where in a chunk something is written: the first and the last sector, and
// some between.
var cellsOf = [...]int64{0, 512, 64 << 10, crashChunk - 512}

// The chunks that are written to lie on both sides of the border of two map sectors.
const (
	snapVolume = 128 // chunks
	snapFirst  = 57
	snapChunks = 14
	snapCells  = snapChunks * len(cellsOf)
)

// stamps are what each cell may hold; 0 is zeros.
type stamps [snapCells][]byte

// moment is what disks may hold from one position of the log on.
type moment struct {
	pos   int
	cells stamps
	or    *[snapCells]byte           // or all of them hold this
	snaps map[string][snapCells]byte // what they hold for certain
	maybe map[string]bool            // of these, those that may be there or not
	pair  [2]string                  // but one of these two
	guids map[string]ondisk.GUID     // of those that were received; no name comes twice
}

// snapWorld is a recorded run of writes, snapshots and deletions, and of what moves chunks.
type snapWorld struct {
	rng     *rand.Rand
	cfg     Config
	disks   []*disktest.Disk
	way     poolWay
	rec     *disktest.Recorder
	vol     *Volume
	now     [snapCells]byte
	at      moment
	moments []moment
	stamp   byte
	inside  bool // a snapshot is being stored, or chunks move
	taken   int
	back    int // rollbacks
	streams int // sent, and received
	record  recordFailure
}

func newSnapWorld(seed uint64, way poolWay, cfg Config) (*snapWorld, error) {
	w := &snapWorld{rng: rand.New(rand.NewPCG(seed, 3)), cfg: cfg, way: way}
	w.cfg.serial, w.cfg.WhenFull, w.cfg.Alloc = true, Fail, AllocOrder(seed%2)
	req := ondisk.LabelRequest{Name: "t", VirtualSize: snapVolume * crashChunk, ChunkSize: crashChunk, ID: uint32(seed) + 1, ChunkMultiple: ondisk.MinChunkMultiple}
	for i, chunks := range []int64{24, 36}[:1+seed%2] {
		d := disktest.New(fmt.Sprintf("d%d", i), (chunks+30*int64(1-seed%2))*crashChunk+8192, 512).FillJunk(seed + uint64(i))
		w.disks = append(w.disks, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: 512})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		return nil, err
	}
	var ps []geomlib.Provider
	for _, d := range w.disks {
		ps = append(ps, d)
	}
	if err := Label(context.Background(), ps, l, LabelOptions{}); err != nil {
		return nil, err
	}
	if way.jobs {
		for i, chunks := range []int64{46, 60} {
			w.disks = append(w.disks, disktest.New(fmt.Sprintf("e%d", i), chunks*crashChunk+8192, 512).FillJunk(seed+uint64(i)))
		}
	}
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return nil, err
	}
	w.rec = disktest.Record(w.disks...)
	for _, d := range w.disks {
		d.SetShares(seed%3 == 2).Inject(w.beside)
	}
	w.at.snaps, w.at.maybe, w.at.guids = make(map[string][snapCells]byte), make(map[string]bool), make(map[string]ondisk.GUID)
	for i := range w.at.cells {
		w.at.cells[i] = []byte{0}
	}
	w.note()
	return w, nil
}

// beside writes to the volume while a snapshot is stored, or chunks move.
func (w *snapWorld) beside(op disktest.Op) error {
	if err := w.record.meet(op); err != nil {
		return err
	}
	if w.inside && op.Kind == disktest.Write && bytes.HasPrefix(op.Data, []byte("GVIRSTOR::")) {
		if !w.vol.committer.running.TryLock() {
			return nil // what writes would wait for it
		}
		w.vol.committer.unpause()
		w.inside = false
		defer func() { w.inside = true }()
		for range 2 {
			if err := w.change(); err != nil {
				return err
			}
		}
	}
	return nil
}

// note keeps what may be on the disks from now on.
func (w *snapWorld) note() {
	m := w.at
	m.pos, m.snaps, m.maybe = w.rec.Len(), maps.Clone(m.snaps), maps.Clone(m.maybe)
	for i := range m.cells {
		m.cells[i] = slices.Clone(m.cells[i])
	}
	w.moments = append(w.moments, m)
}

// set does something that gives cells another stamp.
func (w *snapWorld) set(cells []int, stamp byte, do func() error) error {
	for _, c := range cells {
		w.at.cells[c] = append(w.at.cells[c], stamp)
	}
	w.note()
	if err := do(); err != nil {
		if errors.Is(err, ErrNoSpace) { // some may be done all the same
			return nil
		}
		return err
	}
	for _, c := range cells {
		w.now[c] = stamp
	}
	return nil
}

// offset is where in the volume a cell is.
func offset(cell int) int64 {
	return chunkAt(int64(cell/len(cellsOf))) + cellsOf[cell%len(cellsOf)]
}

// chunkAt is where the volume has the i-th of the chunks that are written to.
func chunkAt(i int64) int64 { return (snapFirst + i) * crashChunk }

// cellsIn are the cells of [off, off+n).
func cellsIn(off, n int64) (cells []int) {
	for c := range snapCells {
		if at := offset(c); at >= off && at+512 <= off+n {
			cells = append(cells, c)
		}
	}
	return cells
}

// change does one request that changes data, or a flush.
func (w *snapWorld) change() error {
	w.stamp = w.stamp%250 + 1
	vc := w.rng.Int64N(snapChunks)
	switch w.rng.IntN(10) {
	case 0:
		n := min(1+w.rng.Int64N(2), snapChunks-vc) * crashChunk
		return w.set(cellsIn(chunkAt(vc), n), 0, func() error { return w.vol.Discard(chunkAt(vc), n) })
	case 1: // in part
		off, n := chunkAt(vc)+512*w.rng.Int64N(2), int64(64<<10)
		return w.set(cellsIn(off, n), 0, func() error { return w.vol.WriteZeroes(off, n, 0) })
	case 2:
		return w.vol.Discard(chunkAt(vc)+1024, 32<<10) // where no cell is
	case 3, 4:
		n := min(1+w.rng.Int64N(2), snapChunks-vc) * crashChunk
		b := bytes.Repeat([]byte{w.stamp}, int(n))
		return w.set(cellsIn(chunkAt(vc), n), w.stamp, func() error { _, err := w.vol.WriteAt(b, chunkAt(vc)); return err })
	case 5: // not whole sectors, where no cell is
		_, err := w.vol.WriteAt(bytes.Repeat([]byte{w.stamp}, 1000), chunkAt(vc)+3000)
		if errors.Is(err, ErrNoSpace) {
			err = nil
		}
		return err
	case 6:
		if err := w.vol.Flush(); err != nil {
			return err
		}
		w.flushed()
		return nil
	default:
		c := int(vc)*len(cellsOf) + w.rng.IntN(len(cellsOf))
		b := bytes.Repeat([]byte{w.stamp}, 512)
		return w.set([]int{c}, w.stamp, func() error { _, err := w.vol.WriteAt(b, offset(c)); return err })
	}
}

// flushed: what the cells hold is certain. What failed for want of space may be done in
// part, so that is read.
func (w *snapWorld) flushed() {
	b := make([]byte, 512)
	for c := range w.at.cells {
		if _, err := w.vol.ReadAt(b, offset(c)); err == nil {
			w.now[c] = b[0]
		}
		w.at.cells[c] = []byte{w.now[c]}
	}
	w.note()
}

// snapshot takes one, or deletes one.
func (w *snapWorld) snapshot(i int) error {
	names := slices.Sorted(maps.Keys(w.at.snaps))
	if len(names) > 2 || len(names) > 0 && w.rng.IntN(3) == 0 {
		name := names[w.rng.IntN(len(names))]
		if w.rng.IntN(3) == 0 {
			return w.rename(name, fmt.Sprintf("r%d", i))
		}
		w.at.maybe[name] = true
		w.note()
		if err := w.vol.DeleteSnapshot(name); err != nil || w.record.failed {
			return err
		}
		delete(w.at.snaps, name)
		delete(w.at.maybe, name)
		w.note()
		return nil
	}
	if err := w.vol.Flush(); err != nil {
		return err
	}
	w.flushed()
	name := fmt.Sprintf("s%d", i)
	w.at.snaps[name], w.at.maybe[name] = w.now, true
	w.note()
	w.inside = true
	err := w.vol.Snapshot(name)
	w.inside = false
	if w.record.failed {
		return err
	}
	delete(w.at.maybe, name)
	if errors.Is(err, ErrNoSpace) {
		delete(w.at.snaps, name)
		err = nil
	} else {
		w.taken++
	}
	w.note()
	return err
}

// rename gives a snapshot another name.
func (w *snapWorld) rename(name, to string) error {
	w.at.snaps[to], w.at.pair = w.at.snaps[name], [2]string{name, to}
	if guid, received := w.at.guids[name]; received {
		w.at.guids[to] = guid
	}
	w.at.maybe[name], w.at.maybe[to] = true, true
	w.note()
	if err := w.vol.RenameSnapshot(name, to, false); err != nil || w.record.failed {
		return err
	}
	delete(w.at.snaps, name)
	delete(w.at.maybe, name)
	delete(w.at.maybe, to)
	w.at.pair = [2]string{}
	w.note()
	return nil
}

// rollback rolls the volume back to a snapshot, if it has one.
func (w *snapWorld) rollback() error {
	names := slices.Sorted(maps.Keys(w.at.snaps))
	if len(names) == 0 {
		return nil
	}
	if err := w.vol.Flush(); err != nil {
		return err
	}
	w.flushed()
	if err := w.vol.Close(); err != nil {
		return err
	}
	err := w.rollbackTo(names[w.rng.IntN(len(names))])
	if errors.Is(err, ErrLargerSnapshots) { // as it may be when the volume was made larger
		w.at.or, err = nil, nil
		w.note()
	}
	if err == nil {
		w.vol, err = openDisks(w.cfg, w.disks)
	}
	return err
}

// rollbackTo rolls the volume, which is closed, back to the snapshot of that name.
func (w *snapWorld) rollbackTo(name string) error {
	then := w.at.snaps[name]
	w.at.or = &then
	w.note()
	if err := rollBack(w.disks, name, w.cfg); err != nil {
		return err
	}
	w.now, w.at.or = then, nil
	for c := range w.at.cells {
		w.at.cells[c] = []byte{then[c]}
	}
	w.note()
	w.back++
	return nil
}

// rollBack rolls the volume on disks back.
func rollBack(disks []*disktest.Disk, name string, cfg Config) error {
	a, err := assembleDisks(disks)
	if err != nil {
		return err
	}
	cfg.seed = seedOf(disks)
	return rollback(a, name, true, cfg)
}

// job moves chunks, or changes the components. That there is no room is fine.
func (w *snapWorld) job() error {
	var free, used []string
	for _, d := range w.disks {
		if slices.ContainsFunc(w.vol.components(), func(c *component) bool { return c.name() == d.Name() }) {
			used = append(used, d.Name())
		} else {
			free = append(free, d.Name())
		}
	}
	one := used[w.rng.IntN(len(used))]
	w.inside = true
	defer func() { w.inside = false }()
	var err error
	switch w.rng.IntN(9) {
	case 0, 1, 2:
		if len(free) > 0 {
			err = w.wait(w.vol.Replace(one, w.disk(free[0]), false, JobOptions{}))
		}
	case 3:
		err = w.wait(w.vol.Evacuate([]string{one}, "", JobOptions{}))
	case 4:
		if len(free) > 0 {
			err = w.vol.Add([]geomlib.Provider{w.disk(free[0])}, AddOptions{})
		}
	case 5:
		err = w.wait(w.vol.Pack(JobOptions{}))
	case 6:
		err = w.wait(w.vol.Rebalance(JobOptions{}))
	case 7:
		err = w.wait(w.vol.Reclaim(JobOptions{}))
	default:
		if w.vol.Size() < 200*64*crashChunk {
			err = w.wait(w.vol.Resize(w.vol.Size()+64*crashChunk, false, JobOptions{}))
		}
	}
	w.note()
	for _, fine := range []error{ErrNoSpace, ErrTooSmall, ErrRequest} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return err
}

// wait waits for a job that was started.
func (w *snapWorld) wait(err error) error {
	if err != nil {
		return err
	}
	s, err := w.vol.WaitJob(context.Background())
	return errors.Join(err, s.Err)
}

func (w *snapWorld) disk(name string) *disktest.Disk {
	i := slices.IndexFunc(w.disks, func(d *disktest.Disk) bool { return d.Name() == name })
	return w.disks[i]
}

func (w *snapWorld) run(ops int) error {
	for i := range ops {
		do := w.change
		switch w.rng.IntN(8) {
		case 0, 1, 2:
			do = func() error { return w.snapshot(i) }
			if w.way.doubt && i > ops/2 {
				return errors.Join(w.record.during(w.rng, do), w.goOn(ops))
			}
		case 3:
			do = w.rollback
		case 4:
			do = func() error {
				if err := w.vol.Close(); err != nil {
					return err
				}
				var err error
				if w.vol, err = openDisks(w.cfg, w.disks); err == nil {
					w.flushed()
				}
				return err
			}
		case 5:
			if w.way.jobs {
				do = w.job
			}
		case 6:
			if do = w.send; i%2 == 0 {
				do = func() error { return w.receive(i) }
			}
		}
		if err := do(); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

// goOn is what may be done when nobody knows which directory is in force.
func (w *snapWorld) goOn(ops int) error {
	for i := range ops {
		if err := w.change(); err != nil {
			return fmt.Errorf("operation %d in doubt: %w", i, err)
		}
	}
	return nil
}

// moment is what the disks may hold at position k.
func (w *snapWorld) moment(k int) moment {
	i, _ := slices.BinarySearchFunc(w.moments, k+1, func(m moment, k int) int { return m.pos - k })
	return w.moments[i-1]
}

// rawOwners reads the maps from disks by themselves, and says how many name each chunk.
func rawOwners(disks []*disktest.Disk) (map[alloc.Phys]int, error) {
	a, err := assembleDisks(disks)
	if err == nil {
		err = a.Err
	}
	if err != nil {
		return nil, err
	}
	byID := make(map[uint64]geomlib.Provider)
	index := make(map[uint64]uint16)
	for i, m := range a.Members {
		byID[m.Metadata.Member.ID], index[m.Metadata.Member.ID] = m.Provider, uint16(i)
	}
	zero := a.Members[0].Metadata
	at := func(member uint64, chunk uint32, n uint32) ([]byte, error) {
		d := byID[member]
		if d == nil {
			return nil, fmt.Errorf("no member %x", member)
		}
		b := make([]byte, (n+511)/512*512)
		_, err := d.ReadAt(b, int64(chunk)*crashChunk)
		return b[:n], err
	}
	owners, virtual := make(map[alloc.Phys]int), make(map[alloc.Phys]uint64)
	name := func(p alloc.Phys, vc uint64) error {
		if owners[p]++; owners[p] > 1 && (virtual[p] != vc || vc == system) {
			return fmt.Errorf("chunk %d of %d is virtual chunk %d and %d", p.Chunk, p.Comp, int64(virtual[p]), int64(vc))
		}
		virtual[p] = vc
		return nil
	}
	first, err := at(zero.Member.ID, 0, uint32(zero.MapBytes()))
	if err != nil {
		return nil, err
	}
	rec, _, err := Record(byID[zero.Member.ID], zero)
	if err != nil {
		return nil, err
	}
	for vc := range zero.Entries() {
		if e := ondisk.DecodeEntry(first[vc*8:], ondisk.DetectOrder(first)); e.Allocated() {
			if removed, last := removeArgs(rec.Intent); rec.Intent.Kind == ondisk.IntentRemove && e.Component == last {
				e.Component = removed
			}
			if err := name(alloc.Phys{Comp: e.Component, Chunk: e.Chunk}, vc); err != nil {
				return nil, err
			}
		}
	}
	if !rec.Directory.Exists() {
		return owners, nil
	}
	chain := func(kind ondisk.ChainKind, first ondisk.Link) ([]byte, error) {
		c, err := ondisk.NewChain(kind, first, crashChunk)
		if err != nil {
			return nil, err
		}
		for l, more := c.Next(); more; l, more = c.Next() {
			b, err := at(l.Member, l.Chunk, l.Length)
			if err != nil {
				return nil, err
			}
			if err := c.Take(b); err != nil {
				return nil, err
			}
			if kind == ondisk.ChainMapList {
				if err := name(alloc.Phys{Comp: index[l.Member], Chunk: l.Chunk}, system); err != nil {
					return nil, err
				}
			}
		}
		return c.Contents(), nil
	}
	b, err := chain(ondisk.ChainDirectory, rec.Directory)
	if err != nil {
		return nil, err
	}
	dir, err := ondisk.DecodeDirectory(b)
	if err != nil {
		return nil, err
	}
	phys := func(number uint16, chunk uint32) alloc.Phys {
		id, _ := dir.Member(number)
		return alloc.Phys{Comp: index[id], Chunk: chunk}
	}
	for _, a := range slices.Concat(dir.Own, dir.Other, dir.Reserve) {
		if err := name(phys(a.Number, a.Chunk), system); err != nil {
			return nil, err
		}
	}
	for _, m := range dir.Maps[1:] {
		b, err := chain(ondisk.ChainMapList, m.List)
		if err != nil {
			return nil, err
		}
		list, err := ondisk.DecodeMapList(b)
		if err != nil {
			return nil, err
		}
		c := list.Chunks[0]
		if c.Hole {
			continue
		}
		p := phys(c.Number, c.Chunk)
		if err := name(p, system); err != nil {
			return nil, err
		}
		id, _ := dir.Member(c.Number)
		n := m.Size / crashChunk
		entries, err := at(id, c.Chunk, uint32(n*ondisk.EntrySize))
		if err != nil {
			return nil, err
		}
		for vc := range n {
			if e := ondisk.DecodeEntry(entries[vc*8:], ondisk.LittleEndian); e.Allocated() {
				if err := name(phys(e.Component, e.Chunk), vc); err != nil {
					return nil, fmt.Errorf("of snapshot %s: %w", m.Name, err)
				}
			}
		}
	}
	return owners, nil
}

// system is the virtual number of a system chunk.
const system = ^uint64(0)

// mustBe compares a recovered volume with what it may hold.
func (m moment) mustBe(v *Volume) error {
	b := make([]byte, 512)
	var holds [snapCells]byte
	for c := range snapCells {
		if _, err := v.ReadAt(b, offset(c)); err != nil {
			return err
		}
		if holds[c] = b[0]; !bytes.Equal(b, bytes.Repeat(b[:1], 512)) {
			return fmt.Errorf("cell %d of chunk %d is torn", c%len(cellsOf), c/len(cellsOf))
		}
	}
	for c, b := range holds {
		if !slices.Contains(m.cells[c], b) && (m.or == nil || *m.or != holds) {
			return fmt.Errorf("cell %d of chunk %d holds %d, may hold %v", c%len(cellsOf), c/len(cellsOf), b, m.cells[c])
		}
	}
	return m.snapshotsMustBe(v)
}

// readOnly opens what a crash left for reading alone.
func (m moment) readOnly(disks []*disktest.Disk, cfg Config) error {
	cfg.ReadOnly = true
	v, err := openDisks(cfg, disks)
	if err != nil {
		return err
	}
	return errors.Join(m.mustBe(v), v.Close())
}

func (m moment) snapshotsMustBe(v *Volume) error {
	there := make(map[string]bool)
	for _, s := range v.Snapshots() {
		there[s.Name] = true
		if _, known := m.snaps[s.Name]; !known {
			return fmt.Errorf("there is a snapshot %s", s.Name)
		}
		if guid, received := m.guids[s.Name]; received && s.GUID != guid {
			return fmt.Errorf("snapshot %s has the GUID %v, it was received with %v", s.Name, s.GUID, guid)
		}
	}
	if err := m.sent(v); err != nil {
		return err
	}
	if m.pair[0] != "" && there[m.pair[0]] == there[m.pair[1]] {
		return fmt.Errorf("snapshots %v: both are there, or neither", m.pair)
	}
	b := make([]byte, 512)
	for name, want := range m.snaps {
		if !there[name] {
			if !m.maybe[name] {
				return fmt.Errorf("snapshot %s is gone", name)
			}
			continue
		}
		view, err := v.OpenSnapshot(name)
		if err != nil {
			return err
		}
		defer view.Close()
		for c := range snapCells {
			if _, err := view.ReadAt(b, offset(c)); err != nil {
				return err
			}
			if !bytes.Equal(b, bytes.Repeat(want[c:c+1], 512)) {
				return fmt.Errorf("cell %d of chunk %d in snapshot %s holds %d, not %d", c%len(cellsOf), c/len(cellsOf), name, b[0], want[c])
			}
		}
	}
	return nil
}

// recovered opens what a crash left, and goes on with it.
func (m moment) recovered(disks []*disktest.Disk, goOn bool, cfg Config) (err error) {
	var ps []geomlib.Provider
	for _, d := range disks {
		ps = append(ps, d)
	}
	if verdict, err := kernelTakes(ps); verdict != kernelRefuses || err != nil {
		return fmt.Errorf("the kernel class takes it: %d, %w", verdict, err)
	}
	if _, err := rawOwners(disks); err != nil {
		return fmt.Errorf("on the disks: %w", err)
	}
	if m.or != nil {
		if err := m.readOnly(disks, cfg); err != nil {
			return fmt.Errorf("opened for reading: %w", err)
		}
	}
	v, err := openDisks(cfg, disks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	owners, err := rawOwners(disks)
	if err != nil {
		return fmt.Errorf("on the disks, opened: %w", err)
	}
	for i, c := range v.components() {
		for chunk := c.first(); chunk < c.usable(); chunk++ {
			p := alloc.Phys{Comp: uint16(i), Chunk: chunk}
			if free := v.alloc.IsFree(p); free == (owners[p] > 0) {
				return fmt.Errorf("chunk %d of %d is free: %t; on the disks %d name it", chunk, i, free, owners[p])
			}
		}
	}
	if err := m.mustBe(v); err != nil || !goOn {
		return err
	}
	if s, err := v.WaitJob(context.Background()); err != nil || s.Err != nil && !errors.Is(s.Err, ErrNoSpace) {
		return fmt.Errorf("a job that goes on: %w, %w", err, s.Err)
	}
	if err := m.mustBe(v); err != nil {
		return fmt.Errorf("when a job has gone on: %w", err)
	}
	// Whatever is given out or overwritten now is nobody else's.
	b := bytes.Repeat([]byte{0xfe}, 512)
	for vc := range int64(snapChunks) {
		if _, err := v.WriteAt(b, chunkAt(vc)+cellsOf[vc%2]); err != nil && !errors.Is(err, ErrNoSpace) {
			return err
		}
	}
	if err := m.snapshotsMustBe(v); err != nil {
		return fmt.Errorf("gone on with: %w", err)
	}
	for _, s := range v.Snapshots() {
		if err := v.DeleteSnapshot(s.Name); err != nil {
			return err
		}
	}
	if len(v.Snapshots()) > 0 || v.pool.others.Load() {
		return errors.New("something is left of the snapshots")
	}
	return nil
}

// explore tries every crash of the run.
func (w *snapWorld) explore(limit uint64, counts *crashCounts) error {
	rng := rand.New(rand.NewPCG(uint64(w.rec.Len()), 9))
	n := 0
	for l := range w.rec.PowerLosses(disktest.Prefix, limit, rng) {
		counts.states.Add(1)
		counts.pooled.Add(1)
		n++
		if err := w.moment(l.At).recovered(w.rec.State(l.At, l.Pick), n%4 == 0, w.cfg); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	for k := range w.rec.Len() {
		counts.states.Add(1)
		counts.pooled.Add(1)
		m := w.moment(k)
		if err := m.recovered(w.rec.ProcessDeath(k), k%4 == 0, w.cfg); err != nil {
			return fmt.Errorf("the process died at %d: %w", k, err)
		}
	}
	return nil
}

// snapRun is one run and its crashes.
func snapRun(seed uint64, way poolWay, ops int, limit uint64, cfg Config, counts *crashCounts) error {
	w, err := newSnapWorld(seed, way, cfg)
	if err == nil {
		err = w.run(ops)
	}
	if err == nil {
		counts.runs.Add(1)
		counts.snapshots.Add(int64(w.taken))
		counts.rollbacks.Add(int64(w.back))
		counts.streams.Add(int64(w.streams))
		w.record.count(counts)
		err = w.explore(limit, counts)
	}
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	if err := w.vol.Close(); !w.record.failed {
		return err
	}
	return nil
}

func TestPowerLossAmongSnapshotsIsSurvived(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	var counts crashCounts
	for seed := range seeds {
		if err := snapRun(seed, poolWay{}, 30, 5, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d runs, %d snapshots, %d states", counts.runs.Load(), counts.snapshots.Load(), counts.states.Load())
}

func TestPowerLossWhileChunksMoveThatSnapshotsNameIsSurvived(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if testing.Short() {
		seeds = 2
	}
	var counts crashCounts
	for seed := range seeds {
		if err := snapRun(seed, poolWay{jobs: true}, 30, 5, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	if counts.rollbacks.Load() == 0 {
		t.Error("nothing was rolled back")
	}
	t.Logf("%d runs, %d snapshots, %d rollbacks, %d states", counts.runs.Load(), counts.snapshots.Load(), counts.rollbacks.Load(), counts.states.Load())
}

func TestPowerLossWhenARecordIsInDoubtIsSurvived(t *testing.T) {
	t.Parallel()
	seeds := uint64(6)
	if testing.Short() {
		seeds = 3
	}
	var counts crashCounts
	for seed := range seeds {
		if err := snapRun(seed, poolWay{doubt: true}, 20, 5, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d runs, %d snapshots, %d states", counts.runs.Load(), counts.snapshots.Load(), counts.states.Load())
}

func TestARecordInDoubtIsNotTakenForWritten(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := uint64(8); seed < 32; seed++ {
		if err := snapRun(seed, poolWay{doubt: true}, 20, 5, Config{breakRule: breakDoubtWritten}, &counts); err != nil {
			t.Logf("after %d states: %v", counts.states.Load(), err)
			return
		}
	}
	t.Errorf("nobody noticed in %d states", counts.states.Load())
}

func TestEachRuleOfSnapshotsIsNeeded(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"a chunk that a snapshot names is not overwritten":                      {breakRule: breakSharedInPlace},
		"what a snapshot names is not given up or zeroed in part":               {breakRule: breakSharedDiscard},
		"a chunk that the volume gives up stays while a snapshot names it":      {breakRule: breakOwners},
		"a snapshot owns its chunks before its record is durable":               {breakRule: breakPendingOwner},
		"what a deleted snapshot named is free only when the record is durable": {breakRule: breakDeletedEarly},
		"maps are written before the directory":                                 {breakRule: breakDirectoryFirst},
		"the directory is written before the record":                            {breakRule: breakRecordFirst},
		"the copy of the directory that is not in force is not given out":       {breakRule: breakTwinGiven},
		"a chunk is copied, flushed, and only then named":                       withoutStep("flush"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var counts crashCounts
			for seed := range uint64(12) {
				if err := snapRun(seed, poolWay{}, 30, 5, cfg, &counts); err != nil {
					t.Logf("after %d states: %v", counts.states.Load(), err)
					return
				}
			}
			t.Errorf("nobody noticed in %d states", counts.states.Load())
		})
	}
}
