package virstor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// crashCounts is what a run of the harness did.
type crashCounts struct {
	runs, ops, states, reopened, kernelRan, kernelHalf, again atomic.Int64
}

func (c *crashCounts) String() string {
	return fmt.Sprintf("%d runs of %d operations: %d crash states, %d reopenings, %d crashed again; the kernel class took %d and saw %d half",
		c.runs.Load(), c.ops.Load(), c.states.Load(), c.reopened.Load(), c.again.Load(), c.kernelRan.Load(), c.kernelHalf.Load())
}

// world is one recorded run: disks, the volume on them, and the model of what it
// must hold.
type world struct {
	seed   uint64
	rng    *rand.Rand
	cfg    Config
	counts *crashCounts

	disks  []*disktest.Disk
	free   []*disktest.Disk // not components
	rec    *disktest.Recorder
	vol    *Volume
	size   int64
	sector int
	chunk  int64
	jobs   bool // moving chunks is among the operations

	mu    sync.Mutex
	model *model
}

const crashChunk = ondisk.MinChunkMultiple

// newWorld labels a volume whose shape the seed decides, and opens it.
func newWorld(seed uint64, cfg Config, counts *crashCounts) (*world, error) {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), cfg: cfg, counts: counts,
		sector: 512, chunk: crashChunk}
	if w.rng.IntN(4) == 0 {
		w.sector = 4096
	}
	if w.rng.IntN(3) == 0 {
		w.cfg.Alloc = Spread
	}
	w.cfg.WhenFull = Fail
	w.cfg.Workers = 4
	n := 1 + w.rng.IntN(3)
	for i := range n + 2 {
		// A size that is a whole number of chunks tempts to use the last one.
		size := (4 + w.rng.Int64N(6)) * w.chunk
		if w.rng.IntN(2) == 0 {
			size += w.rng.Int64N(w.chunk/int64(w.sector)) * int64(w.sector)
		}
		d := disktest.New(fmt.Sprintf("d%d", i), size, w.sector).SetBuffered(w.rng.IntN(2) == 0)
		if w.rng.IntN(3) > 0 {
			d.FillJunk(seed + uint64(i))
		}
		w.disks = append(w.disks, d)
	}
	w.free = append(w.free, w.disks[n:]...)
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: int64(24+w.rng.IntN(40)) * w.chunk, ChunkSize: w.chunk,
		ID: uint32(seed) | 1, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for _, d := range w.disks[:n] {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: w.sector})
		ps = append(ps, d)
	}
	layout, err := ondisk.Plan(req)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if err := Label(context.Background(), ps, layout, LabelOptions{}); err != nil {
		return nil, err
	}
	w.size = int64(layout.Metadata[0].VirtualSize)
	w.model = newModel(w.size)
	w.rec = disktest.Record(w.disks...)
	w.vol, err = openDisks(w.cfg, w.disks)
	return w, err
}

// openDisks opens the one volume on whichever of the disks belong to it.
func openDisks(cfg Config, disks []*disktest.Disk) (*Volume, error) {
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if errors.Is(err, geomlib.ErrNoMetadata) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ms = append(ms, Member{d, m})
	}
	as := Assemble(ms)
	if len(as) != 1 {
		return nil, fmt.Errorf("%d volumes on the disks", len(as))
	}
	return Open(as[0], cfg)
}

// run does n operations, one after the other, or by several workers at once.
func (w *world) run(n, workers int) error {
	w.counts.runs.Add(1)
	if workers == 1 {
		for range n {
			if err := w.op(w.rng, 0, 1); err != nil {
				return err
			}
			w.vol.freed.wait()
		}
		return nil
	}
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i := range workers {
		rng := rand.New(rand.NewPCG(w.seed, uint64(i)+100))
		wg.Go(func() {
			for range n / workers {
				if errs[i] = w.op(rng, i, workers); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// groupUnits is how many units in a row belong to one worker.
const groupUnits = 16

// place picks a range of units. Workers keep to groups of their own.
func (w *world) place(rng *rand.Rand, worker, workers int) (first, n int64) {
	total := w.size / unit
	if workers > 1 {
		groups := total / groupUnits / int64(workers)
		// Few chunks, so that workers meet in them.
		g := rng.Int64N(min(groups, 1+rng.Int64N(groups)))*int64(workers) + int64(worker)
		first = g*groupUnits + rng.Int64N(groupUnits)
		n = 1 + rng.Int64N(groupUnits-first%groupUnits)
		return first, n
	}
	first = rng.Int64N(total)
	switch rng.IntN(4) {
	case 0:
		n = 1 + rng.Int64N(4)
	case 1:
		n = 8
		first &^= 7
	case 2:
		n = 1 + rng.Int64N(3*w.chunk/unit)
	default:
		first = first * unit / w.chunk * (w.chunk / unit)
		n = w.chunk / unit * (1 + rng.Int64N(2))
	}
	return first, min(n, total-first)
}

// op does one operation that rng picks.
func (w *world) op(rng *rand.Rand, worker, workers int) error {
	w.counts.ops.Add(1)
	k := rng.IntN(100)
	switch {
	case k < 12:
		return w.flush()
	case workers == 1 && k < 24 && w.jobs:
		return w.verb(rng)
	case workers == 1 && k < 17:
		return w.verb(rng)
	}
	first, n := w.place(rng, worker, workers)
	switch {
	case k < 75:
		return w.change(first, n, OpWrite, Flags(rng.IntN(8)/7)*FUA)
	case k < 85:
		return w.change(first, n, OpWriteZeroes, Flags(rng.IntN(2))*NoHole|Flags(rng.IntN(8)/7)*FUA)
	case k < 92 && workers == 1:
		return w.change(first, n, OpDelete, 0)
	}
	return w.look(first, n)
}

func (w *world) flush() error {
	w.mu.Lock()
	begun := w.rec.Mark("flush begins")
	w.mu.Unlock()
	if err := w.vol.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.model.flushes = append(w.model.flushes, flushed{begun, w.rec.Mark("flushed")})
	return nil
}

// change writes, zeroes or discards units and tells the model.
func (w *world) change(first, n int64, op Op, fl Flags) error {
	w.mu.Lock()
	s := w.model.begin(first, n, w.rec.Mark("begins"))
	s.fua, s.zero = fl&FUA != 0, op != OpWrite
	s.any = op == OpDelete
	w.mu.Unlock()
	var data []byte
	if op == OpWrite {
		data = make([]byte, n*unit)
		fill(data, s.id)
	}
	err := w.vol.do(op, fl, data, first*unit, n*unit)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		s.acked = w.rec.Mark("acknowledged")
		return nil
	}
	if errors.Is(err, ErrNoSpace) {
		return nil
	}
	return fmt.Errorf("%s of units %d+%d: %w", op, first, n, err)
}

// look reads units back while the volume runs.
func (w *world) look(first, n int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := make([]byte, n*unit)
	if _, err := w.vol.ReadAt(b, first*unit); err != nil {
		return fmt.Errorf("read of units %d+%d: %w", first, n, err)
	}
	now := w.model.at(w.rec.Mark("read"), true, w.chunk)
	for i := range n {
		if err := now.check(first+i, b[i*unit:(i+1)*unit]); err != nil {
			return fmt.Errorf("read in service: %w", err)
		}
	}
	return nil
}

// verb does something that changes metadata. That it cannot be done is fine.
func (w *world) verb(rng *rand.Rand) error {
	n := 3
	if w.jobs {
		n = 8
	}
	comps := w.vol.components()
	pick := func() *component { return comps[rng.IntN(len(comps))] }
	switch rng.IntN(n) {
	case 0:
		return w.reopen(rng.IntN(2) == 0)
	case 1:
		if len(w.free) == 0 {
			return nil
		}
		d := w.free[0]
		if err := w.vol.Add([]geomlib.Provider{d}, AddOptions{}); err != nil {
			if errors.Is(err, ErrTooSmall) {
				return nil
			}
			return err
		}
		w.free = w.free[1:]
	case 2:
		c := pick()
		err := w.vol.Remove(c.name())
		if err == nil {
			w.leave(c)
			return nil
		}
		if !errors.Is(err, ErrAllocated) && !errors.Is(err, ErrComponentZero) {
			return fmt.Errorf("remove: %w", err)
		}
	case 3:
		return w.job(w.vol.Pack(JobOptions{}))
	case 4:
		return w.job(w.vol.Rebalance(JobOptions{}))
	case 5:
		return w.job(w.vol.Reclaim(JobOptions{}))
	case 6:
		c := pick()
		err := w.job(w.vol.Evacuate([]string{c.name()}, "", JobOptions{}))
		if err == nil && len(w.vol.components()) < len(comps) {
			w.leave(c)
		}
		return err
	case 7:
		size := w.vol.Size() + rng.Int64N(80)*w.chunk
		if err := w.job(w.vol.Resize(size, false, JobOptions{})); err != nil {
			return err
		}
		// Operations keep to the size at the start, which every state has.
	}
	return nil
}

// leave returns the disk of a component that was removed.
func (w *world) leave(c *component) {
	for _, d := range w.disks {
		if d.Name() == c.name() {
			w.free = append(w.free, d)
		}
	}
}

// job waits for a job. That there was no room for it is fine.
func (w *world) job(err error) error {
	if err == nil {
		var s JobStatus
		s, err = w.vol.WaitJob(context.Background())
		if err == nil {
			err = s.Err
		}
	}
	if errors.Is(err, ErrNoSpace) || errors.Is(err, ErrRequest) || errors.Is(err, ErrTooSmall) || errors.Is(err, ErrNoExtension) {
		return nil
	}
	return err
}

// reopen closes the volume, handing it back or not, and opens it again.
func (w *world) reopen(handBack bool) error {
	w.mu.Lock()
	begun := w.rec.Mark("close begins")
	w.mu.Unlock()
	var err error
	if handBack {
		err = w.vol.Stop()
	} else {
		err = w.vol.Close()
	}
	if err != nil && !errors.Is(err, ErrNotHandedBack) {
		return fmt.Errorf("close: %w", err)
	}
	w.mu.Lock()
	w.model.flushes = append(w.model.flushes, flushed{begun, w.rec.Mark("closed")})
	w.mu.Unlock()
	w.vol, err = openDisks(w.cfg, w.disks)
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	return nil
}

// explore makes crash states of the run and checks each. At every position
// the states in which all, and none, of the unflushed writes survive; every
// subset where there are few; a number of random ones.
func (w *world) explore(random int, from, stride int) error {
	length := w.rec.Len()
	for k := from; k <= length; k += stride {
		rng := rand.New(rand.NewPCG(w.seed, uint64(k)+1000))
		picks := []disktest.Pick{disktest.All, disktest.None}
		for range random {
			picks = append(picks, disktest.Random(rng))
		}
		picks = append(picks, w.subsets(k)...)
		now := w.model.at(k, false, w.chunk)
		for i, pick := range picks {
			if err := w.crashAt(now, w.rec.State(k, pick), i == 0); err != nil {
				return fmt.Errorf("seed %d, power lost at %d of %d, choice %d: %w", w.seed, k, length, i, err)
			}
		}
		if err := w.crashAt(w.model.at(k, true, w.chunk), w.rec.ProcessDeath(k), false); err != nil {
			return fmt.Errorf("seed %d, killed at %d of %d: %w", w.seed, k, length, err)
		}
	}
	return nil
}

// subsets are all choices of what survives on the disk that has the most
// pending, if that is little; on the others everything does.
func (w *world) subsets(k int) []disktest.Pick {
	counts := make(map[int]int)
	w.rec.State(k, func(disk int, ops []disktest.Op) []disktest.Part {
		counts[disk] = len(ops)
		return nil
	})
	var picks []disktest.Pick
	for disk, n := range counts {
		if n < 2 || n > 4 {
			continue
		}
		for set := 1; set < 1<<n-1; set++ {
			picks = append(picks, func(d int, ops []disktest.Op) []disktest.Part {
				if d != disk {
					return disktest.All(d, ops)
				}
				var parts []disktest.Part
				for i := range ops {
					if set&(1<<i) != 0 {
						parts = append(parts, disktest.Part{Index: i})
					}
				}
				return parts
			})
		}
	}
	return picks
}

func (w *world) crashAt(now *view, disks []*disktest.Disk, goOn bool) error {
	w.counts.states.Add(1)
	if err := w.judge(disks, now, goOn && now.k%16 == 3); err != nil {
		w.keep(disks)
		return err
	}
	return nil
}

// judge runs the invariants over one crash state. Some go on: filled to the end,
// no chunk may come out twice.
func (w *world) judge(disks []*disktest.Disk, now *view, goOn bool) error {
	ps := make([]geomlib.Provider, len(disks))
	for i, d := range disks {
		ps[i] = d
	}
	verdict, err := kernelTakes(ps)
	if err != nil {
		return fmt.Errorf("what the kernel class would do: %w", err)
	}
	switch verdict {
	case kernelRuns:
		w.counts.kernelRan.Add(1)
	case kernelIncomplete:
		w.counts.kernelHalf.Add(1)
	}
	cfg := w.cfg
	cfg.breakRule &= breakIntentTwice
	cfg.Workers = 1
	v, err := openDisks(cfg, disks)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	w.counts.reopened.Add(1)
	err = w.readAll(v, now)
	if err == nil && goOn {
		w.counts.again.Add(1)
		err = fillUp(v, w.size)
	}
	if err != nil {
		return errors.Join(err, v.Close())
	}
	if err := v.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if !goOn {
		return nil
	}
	if v, err = openDisks(cfg, disks); err != nil {
		return fmt.Errorf("open after filling: %w", err)
	}
	return v.Close()
}

// readAll checks all of the volume against the model.
func (w *world) readAll(v *Volume, now *view) error {
	buf := make([]byte, w.chunk)
	for off := int64(0); off < w.size; off += w.chunk {
		b := buf
		first := off / unit
		mapped := v.chunks.load(uint64(off/w.chunk))&wordAlloc != 0
		if mapped {
			if _, err := v.ReadAt(b, off); err != nil {
				return fmt.Errorf("read: %w", err)
			}
		} else {
			b = zeroBytes[:w.chunk]
		}
		if !now.touched[off/w.chunk] {
			if mapped && !isZero(b) {
				return fmt.Errorf("chunk %d was never written and is not zero", off/w.chunk)
			}
			continue
		}
		for i := range w.chunk / unit {
			if err := now.check(first+i, b[i*unit:(i+1)*unit]); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillUp writes to every chunk until there is no space.
func fillUp(v *Volume, size int64) error {
	b := make([]byte, v.sector)
	for off := int64(0); off < size; off += v.chunk {
		if _, err := v.WriteAt(b, off); errors.Is(err, ErrNoSpace) {
			break
		} else if err != nil {
			return fmt.Errorf("write after the crash: %w", err)
		}
	}
	return v.Flush()
}

// keep saves a state that violates an invariant where GVIRSTOR_CRASH_DIR says.
func (w *world) keep(disks []*disktest.Disk) {
	dir := os.Getenv("GVIRSTOR_CRASH_DIR")
	if dir == "" {
		return
	}
	for _, d := range disks {
		b := make([]byte, d.MediaSize())
		if _, err := d.ReadAt(b, 0); err != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed%d-%s.img", w.seed, d.Name())), b, 0o600)
	}
}
