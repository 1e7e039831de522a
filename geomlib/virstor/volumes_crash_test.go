package virstor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// The volumes of the crash harness have a cell in every chunk of a few, on both sides of the
// border of two map sectors where they are that large.
const (
	volFirst  = 61
	volChunks = 6
	volSize   = 80 * crashChunk
)

// volCells are what a volume or a snapshot holds.
type volCells [volChunks]byte

// mayHold is what each cell of a volume may hold.
type mayHold [volChunks][]byte

func certain(c volCells) (m mayHold) {
	for i, b := range c {
		m[i] = []byte{b}
	}
	return m
}

func (m mayHold) clone() mayHold {
	for i := range m {
		m[i] = slices.Clone(m[i])
	}
	return m
}

// volMoment is what disks may hold from one position of the log on: of names that are a key,
// volumes, and snapshots as "VOLUME@SNAPSHOT".
type volMoment struct {
	pos   int
	cells map[string]mayHold
	snaps map[string]volCells
	maybe map[string]bool        // there or not
	pair  [2]string              // one of these two
	or    map[string]volCells    // or a volume holds this, all of it
	whole []string               // all of these are there, or none
	limit map[string][2]int64    // by volume, the quota that was set, and the one that is
	guids map[string]ondisk.GUID // of snapshots that were received
}

// volWorld is a recorded run of creations, clones, snapshots, writes and deletions in a pool
// of several volumes.
type volWorld struct {
	rng     *rand.Rand
	cfg     Config
	way     poolWay
	record  recordFailure
	disks   []*disktest.Disk
	spare   *disktest.Disk
	rec     *disktest.Recorder
	vol     *Volume
	now     map[string]volCells
	at      volMoment
	moments []volMoment
	stamp   byte
	inside  bool              // a map is being stored
	leaves  string            // the volume that is being deleted, which nobody uses
	claimed *claimedVolume    // what is received goes there; or nil
	clones  map[string]string // volume: the snapshot that it comes from
	made    int
	moved   int // jobs that moved something
	points  int // snapshots of all volumes
	back    int // rollbacks
	sized   int // changes of size
	streams int // received, or cut off
}

func newVolWorld(seed uint64, way poolWay, cfg Config) (*volWorld, error) {
	w := &volWorld{rng: rand.New(rand.NewPCG(seed, 5)), cfg: cfg, way: way, now: make(map[string]volCells), clones: make(map[string]string)}
	w.cfg.serial, w.cfg.WhenFull, w.cfg.Alloc = true, Fail, AllocOrder(seed%2)
	req := ondisk.LabelRequest{Name: "t", VirtualSize: volSize, ChunkSize: crashChunk, ID: uint32(seed) + 1, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for i, chunks := range []int64{44, 46} {
		d := disktest.New(fmt.Sprintf("d%d", i), chunks*crashChunk+8192, 512).FillJunk(seed + uint64(i))
		w.disks, ps = append(w.disks, d), append(ps, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: 512})
	}
	l, err := ondisk.Plan(req)
	if err == nil {
		err = Label(context.Background(), ps, l, LabelOptions{})
	}
	if err != nil {
		return nil, err
	}
	w.spare = disktest.New("e", 30*crashChunk+8192, 512).FillJunk(seed)
	w.disks = append(w.disks, w.spare)
	if way.jobs {
		w.disks = append(w.disks, disktest.New("f", 60*crashChunk+8192, 512).FillJunk(seed))
	}
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return nil, err
	}
	w.rec = disktest.Record(w.disks...)
	for _, d := range w.disks {
		d.Inject(w.beside)
	}
	w.at = volMoment{cells: map[string]mayHold{"": certain(volCells{})}, snaps: make(map[string]volCells), maybe: make(map[string]bool), limit: make(map[string][2]int64), or: make(map[string]volCells), guids: make(map[string]ondisk.GUID)}
	w.now[""] = volCells{}
	w.note()
	return w, nil
}

// beside writes to volumes while the map of another is stored.
func (w *volWorld) beside(op disktest.Op) error {
	if err := w.record.meet(op); err != nil {
		return err
	}
	if !w.inside || op.Kind != disktest.Write || !bytes.HasPrefix(op.Data, []byte("GVIRSTOR::")) {
		return nil
	}
	for _, h := range w.vol.heads() {
		if !h.committer.running.TryLock() {
			return nil // what writes would wait for it
		}
		h.committer.unpause()
	}
	w.inside = false
	defer func() { w.inside = true }()
	for _, name := range slices.Sorted(maps.Keys(w.now)) {
		for _, h := range w.vol.heads() {
			if h.ownName() != name || name == w.leaves && name != "" {
				continue
			}
			if err := w.changeOf(name, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// note keeps what may be on the disks from now on.
func (w *volWorld) note() {
	m := volMoment{pos: w.rec.Len(), cells: make(map[string]mayHold), snaps: maps.Clone(w.at.snaps), maybe: maps.Clone(w.at.maybe), pair: w.at.pair, whole: w.at.whole, limit: maps.Clone(w.at.limit), or: maps.Clone(w.at.or), guids: maps.Clone(w.at.guids)}
	for name, c := range w.at.cells {
		m.cells[name] = c.clone()
	}
	w.moments = append(w.moments, m)
}

func volCell(c int) int64 { return (volFirst + int64(c)) * crashChunk }

// changeOf does one request to a volume.
func (w *volWorld) changeOf(name string, h *Head) error {
	if w.claimed.is(h) {
		return w.claimed.refusesOthers()
	}
	w.stamp = w.stamp%250 + 1
	c, stamp := w.rng.IntN(volChunks), w.stamp
	do := func() error {
		_, err := h.WriteAt(bytes.Repeat([]byte{stamp}, 512), volCell(c))
		return err
	}
	switch w.rng.IntN(6) {
	case 0:
		stamp = 0
		do = func() error { return h.Discard(volCell(c), crashChunk) }
	case 1:
		do = func() error {
			_, err := h.WriteAt(bytes.Repeat([]byte{stamp}, crashChunk), volCell(c))
			return err
		}
	case 2:
		return h.Discard(volCell(c)+1024, 32<<10) // where no cell is
	}
	return w.set(name, c, stamp, do)
}

// set does something that gives a cell of a volume another stamp.
func (w *volWorld) set(name string, c int, stamp byte, do func() error) error {
	may := w.at.cells[name].clone()
	may[c] = append(may[c], stamp)
	w.holds(name, may)
	w.note()
	err := do()
	if errors.Is(err, ErrNoSpace) || w.record.failed && errors.Is(err, ErrUnfinished) {
		return nil
	}
	if err == nil {
		now := w.now[name]
		now[c] = stamp
		w.now[name] = now
	}
	return err
}

// holds notes what a volume may hold, by whichever name it has.
func (w *volWorld) holds(name string, may mayHold) {
	w.at.cells[name] = may
	if name == w.at.pair[0] && name != "" {
		w.at.cells[w.at.pair[1]] = may
	}
}

// flushed: what all volumes hold is certain.
func (w *volWorld) flushed() error {
	if err := w.vol.Flush(); err != nil {
		return err
	}
	b := make([]byte, 512)
	for _, h := range w.vol.heads() {
		now := w.now[h.ownName()]
		for c := range now {
			if _, err := h.ReadAt(b, volCell(c)); err != nil {
				return err
			}
			now[c] = b[0]
		}
		w.now[h.ownName()] = now
		w.holds(h.ownName(), certain(now))
	}
	w.note()
	return nil
}

// puts does what puts a directory in force, while others write. It may be that a record fails
// then.
func (w *volWorld) puts(do func() error) error {
	w.inside = true
	defer func() { w.inside = false }()
	if w.way.doubt && w.rng.IntN(4) == 0 {
		return w.record.during(w.rng, do)
	}
	return do()
}

// attempt does something after which name is there, or with gone is not. When there is no
// room nothing has changed.
func (w *volWorld) attempt(name string, gone bool, do func() error) (done bool, err error) {
	w.at.maybe[name] = true
	w.note()
	if gone {
		w.leaves = name
	}
	err = w.puts(do)
	if w.leaves = ""; w.record.failed {
		return false, err
	}
	delete(w.at.maybe, name)
	done = err == nil
	if errors.Is(err, ErrNoSpace) {
		err = nil
	}
	if done == gone {
		delete(w.at.cells, name)
		delete(w.at.snaps, name)
		delete(w.now, name)
		delete(w.clones, name)
		delete(w.at.limit, name)
		delete(w.at.guids, name)
	}
	w.note()
	return done, err
}

// step does one operation.
func (w *volWorld) step(i int) error {
	volumes, snaps := slices.Sorted(maps.Keys(w.now)), slices.Sorted(maps.Keys(w.at.snaps))
	name := volumes[w.rng.IntN(len(volumes))]
	h, err := w.vol.OpenVolume(name)
	if err != nil {
		return err
	}
	defer func() {
		if h != nil {
			h.Release()
		}
	}()
	fresh := fmt.Sprintf("n%d", i)
	if w.way.jobs && w.rng.IntN(5) == 0 {
		return w.job()
	}
	switch k := w.rng.IntN(24); {
	case k < 2 && len(snaps) < 4:
		return w.snapshotAll(fresh)
	case k == 2 && name != "":
		return w.limit(name)
	case k <= 5 && name != "":
		h.Release()
		h = nil
		return w.rollback(name)
	case k <= 8 && name != "":
		return w.resize(name)
	case k <= 10 && len(volumes) < 4 && len(snaps) < 4:
		return w.receiveFresh(fresh)
	case k <= 11 && len(snaps) < 4:
		return w.receive(name, fresh, h)
	}
	switch k := w.rng.IntN(14); {
	case k == 0 && len(volumes) < 4:
		w.at.cells[fresh], w.now[fresh] = certain(volCells{}), volCells{}
		_, err = w.attempt(fresh, false, func() error { return createIn(w.vol, fresh, volSize) })
		w.made++
	case k <= 2 && len(snaps) < 4:
		if err := w.flushed(); err != nil {
			return err
		}
		full := name + "@" + fresh
		w.at.snaps[full] = w.now[name]
		_, err = w.attempt(full, false, func() error { return h.Snapshot(fresh) })
	case k <= 5 && len(snaps) > 0 && len(volumes) < 4:
		from := snaps[w.rng.IntN(len(snaps))]
		of, snap, _ := strings.Cut(from, "@")
		o, err := w.vol.OpenVolume(of)
		if err != nil {
			return err
		}
		defer o.Release()
		w.at.cells[fresh], w.now[fresh], w.clones[fresh] = certain(w.at.snaps[from]), w.at.snaps[from], from
		w.made++
		_, err = w.attempt(fresh, false, func() error { return cloneOf(o, snap, fresh) })
		return err
	case k <= 7 && len(snaps) > 0:
		from := snaps[w.rng.IntN(len(snaps))]
		if slices.Contains(slices.Collect(maps.Values(w.clones)), from) {
			return nil
		}
		of, snap, _ := strings.Cut(from, "@")
		o, err := w.vol.OpenVolume(of)
		if err != nil {
			return err
		}
		defer o.Release()
		_, err = w.attempt(from, true, func() error { return o.DeleteSnapshot(snap) })
		return err
	case k <= 9 && name != "":
		for _, s := range snaps {
			if strings.HasPrefix(s, name+"@") {
				return nil
			}
		}
		h.Release()
		h = nil
		if w.rng.IntN(3) == 0 {
			return w.rename(name, fresh)
		}
		_, err = w.attempt(name, true, func() error { return w.vol.DeleteVolume(name) })
	case k == 10 && w.spare != nil:
		w.inside = true
		err = w.vol.Add([]geomlib.Provider{w.spare}, AddOptions{})
		w.inside = false
		w.spare = nil
		w.note()
	case k == 11:
		h.Release()
		h = nil
		if err = w.vol.Close(); err == nil {
			w.vol, err = openDisks(w.cfg, w.disks)
		}
		if err == nil {
			err = w.flushed()
		}
	case k == 12:
		err = w.flushed()
	default:
		for range 3 {
			if err := w.changeOf(name, h); err != nil {
				return err
			}
		}
	}
	return err
}

// job moves chunks, or changes the components. That there is no room is fine.
func (w *volWorld) job() error {
	var free, used []*disktest.Disk
	for _, d := range w.disks {
		if slices.ContainsFunc(w.vol.components(), func(c *component) bool { return c.name() == d.Name() }) {
			used = append(used, d)
		} else {
			free = append(free, d)
		}
	}
	one := used[w.rng.IntN(len(used))].Name()
	w.inside = true
	var err error
	switch k := w.rng.IntN(8); {
	case k <= 2 && len(free) > 0:
		err = w.vol.Replace(one, free[0], false, JobOptions{})
	case k == 3 && len(free) > 0:
		err = w.vol.Add([]geomlib.Provider{free[0]}, AddOptions{})
	case k == 4:
		err = w.vol.Pack(JobOptions{})
	case k == 5:
		err = w.vol.Rebalance(JobOptions{})
	case k == 6 && w.vol.Size() < 200*64*crashChunk:
		err = w.vol.Resize(w.vol.Size()+64*crashChunk, false, JobOptions{})
	default:
		err = w.vol.Evacuate([]string{one}, "", JobOptions{})
	}
	if err == nil {
		var s JobStatus
		s, err = w.vol.WaitJob(context.Background())
		if err = errors.Join(err, s.Err); s.Moved > 0 {
			w.moved++
		}
	}
	w.inside, w.spare = false, nil
	w.note()
	for _, fine := range []error{ErrNoSpace, ErrTooSmall, ErrRequest} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return err
}

// rollback rolls a volume back to one of its snapshots.
func (w *volWorld) rollback(name string) error {
	var own []string
	for full := range w.at.snaps {
		if snap, is := strings.CutPrefix(full, name+"@"); is {
			own = append(own, snap)
		}
	}
	if own == nil {
		return nil
	}
	if err := w.flushed(); err != nil {
		return err
	}
	slices.Sort(own)
	snap := own[w.rng.IntN(len(own))]
	to := w.at.snaps[name+"@"+snap]
	w.at.or[name] = to
	w.note()
	w.leaves = name
	err := w.puts(func() error { return w.vol.RollbackVolume(name, snap, true) })
	if w.leaves = ""; w.record.failed {
		return err
	}
	delete(w.at.or, name)
	if err == nil {
		w.at.cells[name], w.now[name] = certain(to), to
		w.back++
	}
	w.note()
	if errors.Is(err, ErrNoSpace) || errors.Is(err, ErrLargerSnapshots) {
		return nil
	}
	return err
}

// resize makes a volume larger or smaller, where no cell is: its map has another length then.
func (w *volWorld) resize(name string) error {
	size := volSize + w.rng.Int64N(3)*70*crashChunk
	err := w.puts(func() error {
		_, _, err := w.vol.ResizeVolume(name, size, true, false)
		return err
	})
	if err == nil {
		w.sized++
	}
	w.note()
	for _, fine := range []error{ErrNoSpace, ErrLargerSnapshots} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return err
}

// limit gives a volume another quota, which counts when that has returned.
func (w *volWorld) limit(name string) error {
	was, is := w.at.limit[name][1], w.rng.Int64N(volChunks+2)*crashChunk
	w.at.limit[name] = [2]int64{was, is}
	w.note()
	err := w.puts(func() error { return w.vol.SetQuota(name, is, false) })
	if w.record.failed {
		return err
	}
	if err == nil {
		was = is
	}
	w.at.limit[name] = [2]int64{was, was}
	w.note()
	if errors.Is(err, ErrNoSpace) {
		return nil
	}
	return err
}

// snapshotAll takes a snapshot of every volume, at one point.
func (w *volWorld) snapshotAll(fresh string) error {
	if err := w.flushed(); err != nil {
		return err
	}
	for name, now := range w.now {
		full := name + "@" + fresh
		w.at.snaps[full], w.at.maybe[full] = now, true
		w.at.whole = append(w.at.whole, full)
	}
	w.note()
	err := w.puts(func() error { return w.vol.SnapshotAll(fresh) })
	if w.record.failed {
		return err
	}
	for _, full := range w.at.whole {
		delete(w.at.maybe, full)
		if err != nil {
			delete(w.at.snaps, full)
		}
	}
	w.at.whole = nil
	w.note()
	if err == nil {
		w.points++
	}
	if errors.Is(err, ErrNoSpace) {
		return nil
	}
	return err
}

func (w *volWorld) rename(name, to string) error {
	w.at.cells[to], w.now[to], w.at.limit[to] = w.at.cells[name], w.now[name], w.at.limit[name]
	if from, is := w.clones[name]; is {
		w.clones[to] = from
	}
	w.at.pair, w.at.maybe[name], w.at.maybe[to] = [2]string{name, to}, true, true
	w.note()
	if err := w.puts(func() error { return w.vol.RenameVolume(name, to, false) }); err != nil || w.record.failed {
		return err
	}
	w.at.pair = [2]string{}
	delete(w.at.maybe, name)
	delete(w.at.maybe, to)
	delete(w.at.cells, name)
	delete(w.now, name)
	delete(w.clones, name)
	w.note()
	return nil
}

// moment is what the disks may hold at position k.
func (w *volWorld) moment(k int) volMoment {
	i, _ := slices.BinarySearchFunc(w.moments, k+1, func(m volMoment, k int) int { return m.pos - k })
	return w.moments[i-1]
}

// mustBe compares a recovered pool with what it may hold.
func (m volMoment) mustBe(v *Volume) error {
	there := make(map[string]bool)
	for _, h := range v.heads() {
		name := h.ownName()
		there[name] = true
		may, known := m.cells[name]
		if !known {
			return fmt.Errorf("there is a volume %q", name)
		}
		if q := m.limit[name]; !slices.Contains(q[:], h.quota.Load()) {
			return fmt.Errorf("volume %q has a quota of %d, not one of %d", name, h.quota.Load(), q)
		}
		if err := m.cellsMustBe(h, name, may); err != nil {
			return err
		}
		for _, s := range h.Snapshots() {
			full := name + "@" + s.Name
			there[full] = true
			if guid, received := m.guids[full]; received && s.GUID != guid {
				return fmt.Errorf("snapshot %s has the GUID %v, it was received with %v", full, s.GUID, guid)
			}
		}
	}
	if err := m.snapshotsMustBe(v, there); err != nil {
		return err
	}
	if m.pair[0] != "" && there[m.pair[0]] == there[m.pair[1]] {
		return fmt.Errorf("volumes %v: both are there, or neither", m.pair)
	}
	for _, name := range m.whole {
		if there[name] != there[m.whole[0]] {
			return fmt.Errorf("of %v some are there and some are not", m.whole)
		}
	}
	for name := range m.cells {
		if !there[name] && !m.maybe[name] {
			return fmt.Errorf("volume %q is gone", name)
		}
	}
	return nil
}

// cellsMustBe compares what a volume holds.
func (m volMoment) cellsMustBe(h *Head, name string, may mayHold) error {
	var is volCells
	b := make([]byte, 512)
	for c := range may {
		if _, err := h.ReadAt(b, volCell(c)); err != nil {
			return err
		}
		if is[c] = b[0]; !bytes.Equal(b, bytes.Repeat(b[:1], 512)) {
			return fmt.Errorf("cell %d of volume %q holds %d and others", c, name, b[0])
		}
	}
	if or, known := m.or[name]; known && is == or {
		return nil
	}
	for c := range may {
		if !slices.Contains(may[c], is[c]) {
			return fmt.Errorf("cell %d of volume %q holds %d, may hold %v", c, name, is[c], may[c])
		}
	}
	return nil
}

// snapshotsMustBe compares the snapshots, of which those are there.
func (m volMoment) snapshotsMustBe(v *Volume, there map[string]bool) error {
	b := make([]byte, 512)
	for name := range there {
		if _, known := m.snaps[name]; strings.Contains(name, "@") && !known {
			return fmt.Errorf("there is a snapshot %s", name)
		}
	}
	for name, want := range m.snaps {
		if !there[name] {
			if !m.maybe[name] {
				return fmt.Errorf("snapshot %s is gone", name)
			}
			continue
		}
		of, snap, _ := strings.Cut(name, "@")
		h, err := v.OpenVolume(of)
		if err != nil {
			return err
		}
		defer h.Release()
		view, err := h.OpenSnapshot(snap)
		if err != nil {
			return err
		}
		defer view.Close()
		for c := range want {
			if _, err := view.ReadAt(b, volCell(c)); err != nil {
				return err
			}
			if !bytes.Equal(b, bytes.Repeat(want[c:c+1], 512)) {
				return fmt.Errorf("cell %d in snapshot %s holds %d, not %d", c, name, b[0], want[c])
			}
		}
	}
	return nil
}

// ownersAgree compares what is free with what the maps on the disks name.
func ownersAgree(v *Volume, disks []*disktest.Disk) error {
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
	return nil
}

// recovered opens what a crash left, and goes on with it.
func (m volMoment) recovered(disks []*disktest.Disk, goOn bool, cfg Config) (err error) {
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
	v, err := openDisks(cfg, disks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := ownersAgree(v, disks); err != nil {
		return err
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
	return m.goOn(v)
}

// goOn writes to every volume in turn: whatever is given out or overwritten is nobody
// else's. Then all but the first is deleted.
func (m volMoment) goOn(v *Volume) error {
	for _, h := range v.heads() {
		name := h.ownName()
		if may, known := m.cells[name]; known {
			may = may.clone()
			for c := range may {
				switch _, err := h.WriteAt(bytes.Repeat([]byte{0xfe}, 512), volCell(c)); {
				case errors.Is(err, ErrNoSpace):
					if or, known := m.or[name]; known {
						may[c] = append(may[c], or[c])
					}
				case err != nil:
					return err
				default:
					may[c] = []byte{0xfe}
				}
			}
			m.cells, m.or = maps.Clone(m.cells), maps.Clone(m.or)
			m.cells[name] = may
			delete(m.or, name)
		}
		if err := m.mustBe(v); err != nil {
			return fmt.Errorf("volume %q was written to: %w", name, err)
		}
	}
	for range 8 {
		for _, h := range v.heads() {
			for _, s := range h.Snapshots() {
				if err := h.DeleteSnapshot(s.Name); err != nil && !errors.Is(err, ErrCloned) {
					return err
				}
			}
			if !h.isFirst() {
				if err := v.DeleteVolume(h.ownName()); err != nil && !errors.Is(err, ErrHasSnapshots) {
					return err
				}
			}
		}
	}
	if len(v.Snapshots()) > 0 || len(v.Volumes()) > 0 || v.pool.others.Load() {
		return errors.New("something is left of snapshots and volumes")
	}
	v.catchUp()
	return v.Flush()
}

// explore tries every crash of the run.
func (w *volWorld) explore(limit uint64, counts *crashCounts) error {
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
		if err := w.moment(k).recovered(w.rec.ProcessDeath(k), k%4 == 0, w.cfg); err != nil {
			return fmt.Errorf("the process died at %d: %w", k, err)
		}
	}
	return nil
}

// volRun is one run and its crashes.
func volRun(seed uint64, way poolWay, ops int, limit uint64, cfg Config, counts *crashCounts) error {
	w, err := newVolWorld(seed, way, cfg)
	for i := 0; err == nil && i < ops && !w.record.failed; i++ {
		if err = w.step(i); err != nil {
			err = fmt.Errorf("operation %d: %w", i, err)
		}
	}
	if err == nil && w.record.failed {
		err = w.inDoubt()
	}
	if err == nil {
		counts.runs.Add(1)
		counts.snapshots.Add(int64(w.points))
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

func TestPowerLossAmongVolumesIsSurvived(t *testing.T) { volumesSurvive(t, poolWay{}, 3) }

func TestPowerLossWhileChunksOfVolumesMoveIsSurvived(t *testing.T) {
	volumesSurvive(t, poolWay{jobs: true}, 4)
}

func TestPowerLossAmongVolumesWhenARecordIsInDoubtIsSurvived(t *testing.T) {
	volumesSurvive(t, poolWay{doubt: true}, 5)
}

// volumesSurvive tries the crashes of so many runs, or of a third of them if there is no time.
func volumesSurvive(t *testing.T, way poolWay, seeds uint64) {
	t.Parallel()
	if testing.Short() {
		seeds = (seeds + 2) / 3
	}
	var counts crashCounts
	for seed := range seeds {
		if err := volRun(seed, way, 30, 4, Config{}, &counts); err != nil {
			t.Fatal(err)
		}
	}
	if counts.streams.Load() == 0 || way.doubt != (counts.doubtful.Load() > 0) {
		t.Errorf("%d streams were received, and in %d runs a record failed", counts.streams.Load(), counts.doubtful.Load())
	}
	t.Logf("%d runs, %d states, %d streams", counts.runs.Load(), counts.states.Load(), counts.streams.Load())
}

func TestARecordInDoubtOfAPoolOfVolumesIsNotTakenForWritten(t *testing.T) {
	t.Parallel()
	var counts crashCounts
	for seed := range uint64(24) {
		if err := volRun(seed, poolWay{doubt: true}, 30, 4, Config{breakRule: breakDoubtWritten}, &counts); err != nil {
			t.Logf("after %d states: %v", counts.states.Load(), err)
			return
		}
	}
	t.Errorf("nobody noticed in %d states", counts.states.Load())
}

func TestEachRuleOfMovingWhatVolumesNameIsNeeded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute, and more on a busy machine")
	}
	for name, r := range map[string]struct {
		rule rule
		from uint64 // the first seed
	}{
		"what a clone has in common with a snapshot moves with it":         {breakLiveStays, 0},
		"a volume's map does not change while it is written elsewhere":     {breakPartUnpaused, 9},
		"a component keeps its number when its index changes":              {breakOldNumbers, 1},
		"the directory does not name who leaves":                           {breakLeaverNumbered, 0},
		"a copy is flushed before maps name it":                            {breakCopyFlush, 0},
		"the old place is free only when the record is durable":            {breakMovedEarly, 1},
		"maps that name the new place are written before the directory":    {breakDirectoryFirst, 0},
		"the directory that names those maps is written before the record": {breakRecordFirst, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var counts crashCounts
			for seed := range uint64(20) {
				if err := volRun(r.from+seed, poolWay{jobs: true}, 30, 3, Config{breakRule: r.rule}, &counts); err != nil {
					t.Logf("after %d states: %v", counts.states.Load(), err)
					return
				}
			}
			t.Errorf("nobody noticed in %d states", counts.states.Load())
		})
	}
}

func TestEachRuleOfVolumesIsNeeded(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"a clone overwrites nothing that its snapshot has":                    Config{breakRule: breakOriginOwner},
		"what a clone gives up stays while its snapshot names it":             Config{breakRule: breakOwners},
		"a volume's map is written before the directory that names it":        Config{breakRule: breakDirectoryFirst},
		"the directory is written before the record":                          Config{breakRule: breakRecordFirst},
		"what a deleted volume named is free only when the record is durable": Config{breakRule: breakDeletedEarly},
		"a rolled back volume's map is written before the record":             {breakRule: breakBackRecord},
		"what it named is free only when the record is durable":               {breakRule: breakBackEarly},
		"snapshots of all volumes are of one point":                           Config{breakRule: breakOnePoint},
		"what a map gives up is free when that map is durable":                Config{breakRule: breakHomeLedger},
		"a chunk is written, flushed, and only then named":                    withoutStep("flush"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var counts crashCounts
			for seed := range uint64(12) {
				if err := volRun(seed, poolWay{}, 30, 4, cfg, &counts); err != nil {
					t.Logf("after %d states: %v", counts.states.Load(), err)
					return
				}
			}
			t.Errorf("nobody noticed in %d states", counts.states.Load())
		})
	}
}
