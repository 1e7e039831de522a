package virstor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// crashCounts is what a run of the harness did.
type crashCounts struct {
	runs, ops, states, reopened, kernelRan, kernelHalf, again, nested, joined, faults atomic.Int64

	snapshots, pooled atomic.Int64 // snapshots taken, states of runs of them
	rollbacks         atomic.Int64
	streams           atomic.Int64 // received, or cut off
	doubtful          atomic.Int64 // runs in which a record failed that puts a directory in force

	concurrent, beside, orphaned atomic.Int64 // states of runs of clients, verbs beside them, clients that died

	missing, late, old, untold atomic.Int64 // starts with a disk that was; untold: older copies that nothing on disk tells

	// States that a verb left beside a disk that took no writes, of those that it left, and
	// states in the midst of such a verb.
	writeless, writelessLeft, writelessAmid atomic.Int64

	buffers sync.Pool // of *[]byte, as long as the chunks they were for

	// saw, if it is there, is told of each recovery, and what the disks were asked.
	saw func(how string, log []disktest.Op)
}

// buffer is one of n bytes, which hold anything.
func (c *crashCounts) buffer(n int64) []byte {
	if b, ok := c.buffers.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return (*b)[:n]
	}
	return make([]byte, n)
}

func (c *crashCounts) String() string {
	return fmt.Sprintf("%d runs of %d operations: %d crash states (%d of a recovery from another crash), %d reopenings, %d gone on with; "+
		"the kernel class took %d and saw %d half; %d faults injected; "+
		"%d states of concurrent runs, beside %d verbs, %d clients died; "+
		"%d starts with a disk missing, %d with one late, %d with an older copy (%d more copies of one generation); "+
		"%d states of disks that took no writes during a verb (%d of one that left), and %d in its midst; "+
		"%d states among %d snapshots, %d rollbacks and %d streams, in %d runs with a record in doubt",
		c.runs.Load(), c.ops.Load(), c.states.Load(), c.nested.Load(), c.reopened.Load(), c.again.Load(),
		c.kernelRan.Load(), c.kernelHalf.Load(), c.faults.Load(),
		c.concurrent.Load(), c.beside.Load(), c.orphaned.Load(),
		c.missing.Load(), c.late.Load(), c.old.Load(), c.untold.Load(), c.writeless.Load(), c.writelessLeft.Load(), c.writelessAmid.Load(),
		c.pooled.Load(), c.snapshots.Load(), c.rollbacks.Load(), c.streams.Load(), c.doubtful.Load())
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

	clients bool // the run is one of clients with goroutines

	insists bool // what failed is tried once more,
	again   bool // and this is that
	// failing is the disk of which a request failed, if one has.
	failing atomic.Pointer[disktest.Disk]
	// hadFailing: one did in the life before, and new chunks went elsewhere.
	hadFailing bool

	verb  *verb  // what the run is about; nil: whatever rng picks
	start int    // position in the log from which on crashes are of interest
	how   string // which crashes led here
	after *world // whose crash this is the recovery from, or none
	ours  []span // while the kernel class must refuse every component
	old   *view  // of the volume that the verb makes another one of, or none

	// harmful is metadata with which the kernel class would do harm, and with
	// which the run begins.
	harmful []ondisk.Metadata

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
	if cfg.serial { // nobody would end what is held
		w.cfg.WhenFull = Fail
	}
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
	if err := w.label(n, int64(24+w.rng.IntN(40)), uint32(seed)|1); err != nil {
		return nil, err
	}
	var err error
	if w.vol, err = openDisks(w.cfg, w.disks); err == nil {
		w.fenced()
	}
	return w, err
}

// label makes a volume of so many virtual chunks on the first n disks, and begins
// the model and the recording.
func (w *world) label(n int, chunks int64, id uint32) error {
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: chunks * w.chunk, ChunkSize: w.chunk, ID: id, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for _, d := range w.disks[:n] {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: w.sector})
		ps = append(ps, d)
	}
	layout, err := ondisk.Plan(req)
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	if err := Label(context.Background(), ps, layout, LabelOptions{}); err != nil {
		return err
	}
	w.size = int64(layout.Metadata[0].VirtualSize)
	w.model = newModel(w.chunk)
	w.rec = disktest.Record(w.disks...)
	return nil
}

// span is the positions of the log [from, to); to 0 is its end.
type span struct{ from, to int }

// fenced notes that the volume is open for writing.
func (w *world) fenced() {
	if n := len(w.ours); n == 0 || w.ours[n-1].to != 0 {
		w.ours = append(w.ours, span{from: w.rec.Mark("fenced") + 1})
	}
}

// handsBack notes that from now on the fence may be lifted.
func (w *world) handsBack() {
	if n := len(w.ours); n > 0 && w.ours[n-1].to == 0 {
		w.ours[n-1].to = w.rec.Mark("hands back")
	}
}

// isFenced reports whether the volume is open for writing at position k.
func (w *world) isFenced(k int) bool {
	for _, s := range w.ours {
		if k >= s.from && (s.to == 0 || k <= s.to) {
			return true
		}
	}
	return false
}

// errNoVolume: there is not one volume on the disks.
var errNoVolume = errors.New("volumes on the disks")

// openDisks opens the one volume on whichever of the disks belong to it.
func openDisks(cfg Config, disks []*disktest.Disk) (*Volume, error) {
	cfg.seed = seedOf(disks)
	a, err := assembleDisks(disks)
	if err != nil {
		return nil, err
	}
	return Open(a, cfg)
}

// assembleDisks is the one volume on disks.
func assembleDisks(disks []*disktest.Disk) (*Assembly, error) {
	var ms []Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if errors.Is(err, geomlib.ErrNoMetadata) {
			_ = SettleCleared(d) // as the daemon does, which goes on without it as well
			continue
		}
		if err != nil {
			return nil, err
		}
		ms = append(ms, Member{d, m})
	}
	as := Assemble(ms)
	if len(as) != 1 {
		return nil, fmt.Errorf("%d %w", len(as), errNoVolume)
	}
	return as[0], nil
}

// seedOf is a number that two openings have in common only when nothing was written in
// between: what a serial volume draws must not come again after it was handed back.
func seedOf(disks []*disktest.Disk) uint64 {
	h := fnv.New64a()
	sector := make([]byte, disks[0].SectorSize())
	for _, d := range disks {
		if _, err := d.ReadAt(sector, d.MediaSize()-int64(len(sector))); err == nil {
			h.Write(sector)
		}
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(d.Count(disktest.Write))))
	}
	return h.Sum64()
}

// run does n operations, one after the other, or by several workers at once.
func (w *world) run(n, workers int) error {
	if workers == 1 {
		for range n {
			w.zeroAhead()
			if err := w.op(w.rng, 0, 1); err != nil {
				return err
			}
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

// zeroAhead does what a volume does that is idle, at instants that the seed chooses.
func (w *world) zeroAhead() {
	if w.cfg.ZeroAhead == 0 || w.rng.IntN(3) > 0 {
		return
	}
	newZeroAhead(w.vol).one()
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
		return w.anyVerb(rng, nobody)
	case workers == 1 && k < 17:
		return w.anyVerb(rng, nobody)
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
	m := w.begin(first, n, op, fl|MayBlock)
	w.vol.Submit(&m.r)
	w.vol.catchUp()
	err := w.wait(m)
	if err == nil || errors.Is(err, ErrNoSpace) {
		return nil
	}
	return fmt.Errorf("%s of units %d+%d: %w", op, first, n, err)
}

// wait returns how a request ended. What a serial volume does not do now it would
// do when time has passed.
func (w *world) wait(m *marker) error {
	for range 8 {
		select {
		case err := <-m.done:
			return err
		default:
		}
		if !w.vol.cfg.serial {
			return <-m.done
		}
		w.vol.committer.expire()
		w.vol.catchUp()
	}
	return errors.New("does not end, however much time passes")
}

// begin tells the model of a change, and makes the request for it.
func (w *world) begin(first, n int64, op Op, fl Flags) *marker {
	w.mu.Lock()
	defer w.mu.Unlock()
	begun := w.rec.Mark("begins")
	var steps []*step
	var id uint64
	for _, part := range w.parts(first, n, op) {
		s := w.model.begin(part.first, part.n, begun)
		s.fua, s.zero, s.any = fl&FUA != 0, op != OpWrite, part.any
		steps = append(steps, s)
		id = s.id
	}
	m := &marker{w: w, steps: steps, first: first, n: n, begun: begun, done: make(chan error, 1)}
	m.r = Request{Op: op, Flags: fl, Offset: first * unit, Length: n * unit, Done: m}
	if op == OpWrite {
		m.r.Data = make([]byte, n*unit)
		fill(m.r.Data, id)
	}
	return m
}

// part is a range of units. any: afterwards it may hold anything.
type part struct {
	first, n int64
	any      bool
}

// parts divides what an operation does to units. A discard frees whole chunks,
// which then read as zeros; of others nothing is promised.
func (w *world) parts(first, n int64, op Op) []part {
	if op != OpDelete {
		return []part{{first, n, false}}
	}
	per := w.chunk / unit
	lo, hi := (first+per-1)/per*per, (first+n)/per*per
	if lo >= hi {
		return []part{{first, n, true}}
	}
	var list []part
	for _, p := range []part{{first, lo - first, true}, {lo, hi - lo, false}, {hi, first + n - hi, true}} {
		if p.n > 0 {
			list = append(list, p)
		}
	}
	return list
}

// marker is a change or a flush under way. It notes the acknowledgement at the
// instant at which it is given.
type marker struct {
	r        Request
	w        *world
	steps    []*step
	first, n int64 // units
	begun    int   // position
	flush    bool
	dead     bool // who asked for it is gone, and is told nothing
	done     chan error
}

// Complete is called by one of the volume's goroutines. w.mu is held by nobody who
// waits for the volume.
func (m *marker) Complete(r *Request) {
	m.w.mu.Lock()
	what := "acknowledged"
	if r.Err != nil || m.dead {
		what = "ended"
	}
	at := m.w.rec.Mark(what)
	for _, s := range m.steps {
		s.ended = at
		if r.Err == nil && !m.dead {
			s.acked = at
		}
	}
	if m.flush && r.Err == nil {
		m.w.model.flushes = append(m.w.model.flushes, flushed{m.begun, at})
	}
	m.w.mu.Unlock()
	m.done <- r.Err
}

// look reads units back while the volume runs.
func (w *world) look(first, n int64) error {
	b := make([]byte, n*unit)
	if _, err := w.vol.ReadAt(b, first*unit); err != nil {
		return fmt.Errorf("read of units %d+%d: %w", first, n, err)
	}
	// Nobody else changes these units.
	w.mu.Lock()
	now := w.model.at(w.rec.Mark("read"), true)
	w.mu.Unlock()
	for i := range n {
		if err := now.check(first+i, b[i*unit:(i+1)*unit]); err != nil {
			return fmt.Errorf("read in service: %w", err)
		}
	}
	return nil
}

// nobody is who need not be quiet.
func nobody(bool) {}

// anyVerb does something that changes metadata. That it cannot be done is fine.
// quiet is told to submit nothing, and when it may again.
func (w *world) anyVerb(rng *rand.Rand, quiet func(on bool)) error {
	n := 3
	if w.jobs {
		n = 8
	}
	comps := w.vol.components()
	pick := func() *component { return comps[rng.IntN(len(comps))] }
	switch rng.IntN(n) {
	case 0:
		quiet(true)
		defer quiet(false)
		return w.reopen(rng.IntN(2) == 0)
	case 1:
		if len(w.free) == 0 {
			return nil
		}
		d := w.free[0]
		err := w.vol.Add([]geomlib.Provider{d}, AddOptions{})
		if errors.Is(err, ErrTooSmall) {
			return nil
		}
		if err != nil {
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
		w.handsBack()
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
		w.vol = nil
		return fmt.Errorf("reopen: %w", err)
	}
	w.fenced()
	return nil
}

// breadth is how many crash states are made of a run.
type breadth struct {
	stride int // every how many positions of the log
	exact  int // up to how many arrangements of what is pending
	random int // random choices of it, torn ones too
	goOn   int // one state in so many goes on: the verb, writes,
	fill   int // and one in so many of these until the volume is full
	nest   int // one state in so many crashes again while it recovers,
	nested int // at so many positions,
	depth  int // and again, so many times
	absent int // one state in so many is started with a disk that is not what it was
}

// inner is the breadth of the crashes of a recovery.
func (b breadth) inner() breadth {
	b.depth--
	b.exact, b.random, b.nest = b.exact/2, (b.random+1)/2, max(1, b.nest/4)
	return b
}

// explore makes crash states of the run and checks each: at every position the
// process dies, and the power fails, with what is pending arranged in every way
// where there are few, and in random ones.
func (w *world) explore(b breadth) error {
	length := w.rec.Len()
	for k := w.start; k <= length; k += b.stride {
		if err := w.crashesAt(k, b); err != nil {
			return err
		}
	}
	return nil
}

// crashesAt makes the crash states of one position.
func (w *world) crashesAt(k int, b breadth) error {
	n := 0
	whole := b
	one := judge(func(now, cached *view, what string, disks []*disktest.Disk) error {
		b := whole
		n++
		how := fmt.Sprintf("%s%s at %d%s; ", w.how, what, k, w.next(k))
		turn := k + n
		if turn%b.nest != 0 {
			b.depth = 0
		}
		if turn/b.nest%b.goOn != 0 {
			b.goOn = 0
		} else if turn/b.nest/b.goOn%b.fill != 0 {
			b.fill = 0
		}
		err := w.fenceHolds(k, disks)
		if err == nil && b.absent > 0 && turn%b.absent == 0 {
			err = w.absences(k, disks, now, how)
		}
		if err == nil {
			err = w.recovered(disks, now, cached, how, b, whole.inner())
		} else {
			err = fmt.Errorf("%s%w", how, err)
		}
		if err != nil {
			w.keep(disks)
		}
		return err
	})
	now := w.model.at(k, false)
	if err := one(w.model.at(k, true), now, "killed", w.rec.ProcessDeath(k)); err != nil {
		return err
	}
	if err := w.killedWithin(k, one); err != nil {
		return err
	}
	pending := 0
	for i := range w.disks {
		pending += len(w.rec.Pending(k, i))
	}
	if pending == 0 {
		return nil // as if killed
	}
	for l := range w.rec.Arrangements(k, b.exact) {
		if err := one(now, nil, l.String(), w.rec.State(k, l.Pick)); err != nil {
			return err
		}
	}
	if w.rec.Count(k, disktest.Prefix) <= uint64(b.exact) {
		for i := range w.rec.Count(k, disktest.Prefix) {
			l := w.rec.PowerLoss(k, disktest.Prefix, i)
			if err := one(now, nil, "torn: "+l.String(), w.rec.State(k, l.Pick)); err != nil {
				return err
			}
		}
	}
	rng := rand.New(rand.NewPCG(w.seed, uint64(k)+1000))
	for i := range b.random {
		if err := one(now, nil, fmt.Sprintf("power lost, random choice %d,", i), w.rec.State(k, disktest.Random(rng))); err != nil {
			return err
		}
	}
	return nil
}

// judge is given one crash state.
type judge func(now, cached *view, what string, disks []*disktest.Disk) error

// killedWithin makes the state in which the process died in the midst of what the
// log has at k, if that is of several sectors.
func (w *world) killedWithin(k int, one judge) error {
	log := w.rec.Log()
	if k == len(log) {
		return nil
	}
	switch o := log[k]; {
	case o.Kind != disktest.Write && o.Kind != disktest.Delete && o.Kind != disktest.Zero, o.Len < 2*o.Sector:
		return nil
	}
	rng := rand.New(rand.NewPCG(w.seed, uint64(k)+2000))
	disks := w.rec.ProcessDeathWithin(k, func(o disktest.Op) (from, to int64) {
		n := o.Len / o.Sector
		if from = 0; rng.IntN(2) == 0 {
			from = rng.Int64N(n)
		}
		return from * o.Sector, (from + 1 + rng.Int64N(n-from)) * o.Sector
	})
	return one(w.model.at(k, true), w.model.at(k, false), "killed within", disks)
}

// recovered judges one crash state: what the kernel class would do with it, and
// that it opens without help and holds what it should. Some go on: the verb is
// brought to its end, more is written, until the volume is full. While all that is
// done, the power may fail again.
func (w *world) recovered(disks []*disktest.Disk, now, cached *view, how string, b, inner breadth) error {
	w.counts.states.Add(1)
	if w.how != "" {
		w.counts.nested.Add(1)
	}
	if err := w.askKernel(disks); err != nil && !w.takenBefore(disks) {
		return fmt.Errorf("%s%w", how, err)
	}
	c := &world{seed: w.seed, cfg: w.cfg, counts: w.counts, disks: disks, size: w.size, sector: w.sector,
		chunk: w.chunk, jobs: w.jobs, verb: w.verb, how: how, after: w, old: w.old, harmful: w.harmful, model: w.model.goOn(cached)}
	c.rng = rand.New(rand.NewPCG(w.seed, hashOf(how)))
	c.cfg.breakRule, c.cfg.commitSteps = c.cfg.breakRule&breakIntentTwice, nil
	c.hadFailing = w.hadFailing || w.failing.Load() != nil
	if w.clients {
		w.counts.concurrent.Add(1)
	}
	// A recovery is the seed's alone, whatever the run was.
	c.cfg.serial, c.cfg.WhenFull, c.clients = true, Fail, w.clients
	c.rec = disktest.Record(disks...)
	end, err := c.recover(now, b)
	if w.counts.saw != nil {
		w.counts.saw(how, c.rec.Log())
	}
	if err != nil {
		return fmt.Errorf("%s%w", how, err)
	}
	if b.depth == 0 {
		return nil
	}
	for range b.nested {
		if err := c.crashesAt(c.rng.IntN(end+1), inner); err != nil {
			return err
		}
	}
	return nil
}

// next says what the disks were asked next when a crash was at k.
func (w *world) next(k int) string {
	for _, o := range w.rec.Log()[k:] {
		if o.Kind != disktest.Mark {
			return fmt.Sprintf(" before %s on d%d", o, o.Disk)
		}
	}
	return ""
}

func hashOf(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// askKernel runs the model of the kernel class over raw disks.
func (w *world) askKernel(disks []*disktest.Disk) error {
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
	return nil
}

// fenceHolds looks at the versions in a crash state at position k: while the volume
// is open for writing all are ours, and component 0 is the first that the fence
// is put on and the last that it is lifted from.
func (w *world) fenceHolds(k int, disks []*disktest.Disk) error {
	if w.verb != nil && w.verb.offline {
		return nil
	}
	fenced := w.isFenced(k)
	var zero, other *disktest.Disk // at version 1, and not
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil {
			continue
		}
		switch {
		case m.Version != ondisk.Version:
			other = d
		case fenced:
			return fmt.Errorf("%s is at version %d while the volume is open for writing", d.Name(), m.Version)
		case m.No == 0:
			zero = d
		}
	}
	// What was removed, or was to be added, keeps its label and version.
	if zero != nil && other != nil && !complete(disks) {
		return fmt.Errorf("component 0, %s, is at version 1 before %s", zero.Name(), other.Name())
	}
	return nil
}

// recover opens the volume after a crash, and checks it. It returns the position in
// the log up to which the recovery goes.
func (w *world) recover(now *view, b breadth) (end int, err error) {
	if err := w.openAfter(now); err != nil || w.vol == nil {
		return w.rec.Len(), err
	}
	w.counts.reopened.Add(1)
	if b.goOn > 0 {
		w.counts.again.Add(1)
		err = w.live()
	}
	if err != nil {
		return 0, errors.Join(err, w.vol.Close())
	}
	if err := w.endLife(); err != nil {
		return 0, err
	}
	end = w.rec.Len()
	if b.goOn > 0 && b.fill > 0 {
		err = w.fillUp()
	}
	return end, err
}

// openAfter opens the volume after a crash, and reads all of it. Where a verb is
// done to the disks rather than to the volume, it is done to its end first.
func (w *world) openAfter(now *view) (err error) {
	v := w.verb
	if v == nil || v.opens != openNever {
		if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
			w.vol = nil
		}
	}
	if w.vol == nil && (v == nil || v.opens == openAlways) {
		return fmt.Errorf("open: %w", err)
	}
	if w.vol != nil && w.old != nil && w.vol.ID() != v.id {
		// The verb was not begun yet, or only in caches.
		_, err := w.readAll(w.old)
		if err = errors.Join(err, w.vol.Close()); err != nil {
			return fmt.Errorf("the old volume: %w", err)
		}
		w.vol = nil
	}
	if w.vol == nil {
		if err := v.do(w); err != nil {
			return fmt.Errorf("%s after a crash: %w", v.name, err)
		}
		if v.destroys {
			return v.end(w)
		}
		if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if w.old != nil {
			now, w.model.cached = newModel(w.chunk).at(0, true), nil
		}
	}
	w.model.settled = w.rec.Mark("open")
	w.fenced()
	base, err := w.readAll(now)
	if err == nil {
		err = w.rawMap()
	}
	if err == nil {
		err = w.resumed()
	}
	if err != nil {
		return errors.Join(err, w.vol.Close())
	}
	w.model.base = base
	for _, d := range w.disks {
		if !w.has(d.Name()) {
			w.free = append(w.free, d)
		}
	}
	return nil
}

// takenBefore reports whether the kernel class could do its harm before the verb
// was begun: nothing is written to the metadata yet.
func (w *world) takenBefore(disks []*disktest.Disk) bool {
	if w.harmful == nil {
		return false
	}
	for i, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil || m != w.harmful[i] {
			return false
		}
	}
	return true
}

// resumed waits for the job that goes on after the crash.
func (w *world) resumed() error {
	s, err := w.vol.WaitJob(context.Background())
	if err == nil && s.Err != nil && !errors.Is(s.Err, ErrNoSpace) {
		err = fmt.Errorf("a job that goes on: %w", s.Err)
	}
	return err
}

// live is what is done with a volume while it is open.
func (w *world) live() error {
	if w.verb == nil {
		return w.run(4, 1)
	}
	return w.doVerb()
}

// endLife closes the volume, handing it back if that can be.
func (w *world) endLife() error {
	w.handsBack()
	err := w.vol.Stop()
	if errors.Is(err, ErrNotHandedBack) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	for _, p := range w.vol.Providers() {
		if m, err := geomlib.ReadMetadata(p); err != nil || m.Version != ondisk.Version {
			return fmt.Errorf("%s was handed back at version %d, %w", p.Name(), m.Version, err)
		}
	}
	return w.askKernel(w.disks)
}

// readAll checks all of the volume against what it should hold, and returns what
// that is.
func (w *world) readAll(now *view) (contents, error) {
	v := w.vol
	got := make(contents)
	buf := w.counts.buffer(w.chunk)
	defer w.counts.buffers.Put(&buf)
	end := min(w.size, v.Size())
	for off := int64(0); off < end; off += w.chunk {
		b := buf
		first := off / unit
		mapped := v.chunks.Load(uint64(off / w.chunk)).Allocated()
		if mapped {
			if _, err := v.ReadAt(b, off); err != nil {
				return nil, fmt.Errorf("read: %w", err)
			}
		}
		vc := off / w.chunk
		units := now.chunks[vc]
		if units == nil {
			if mapped && !isZero(b) {
				return nil, fmt.Errorf("chunk %d was never written and is not zero", vc)
			}
			continue
		}
		if !mapped { // nothing is there to be looked at
			for i := range units {
				if err := units[i].checkZero(first + int64(i)); err != nil {
					return nil, err
				}
			}
			continue
		}
		var ids []uint64
		for i := range w.chunk / unit {
			u := b[i*unit : (i+1)*unit]
			if err := units[i].check(first+i, u); err != nil {
				return nil, err
			}
			id := idOf(u)
			if units[i].any && !bytes.Equal(u[8:], u[:unit-8]) {
				id = odd
			}
			if id == zeroOp {
				continue
			}
			if ids == nil {
				ids = make([]uint64, w.chunk/unit)
				got[vc] = ids
			}
			ids[i] = id
		}
	}
	if vc, all := v.chunks.NextAllocated(uint64(w.size/w.chunk), uint64(v.Size()/w.chunk)), uint64(v.Size()/w.chunk); vc < all {
		return nil, fmt.Errorf("chunk %d, beyond what was ever written, is allocated", vc)
	}
	return got, nil
}

// rawMap looks at the raw bytes of an open volume that rests: what the metadata says
// of each component, that its map is the one in memory, and that no chunk in it is
// named twice or overlaps the map, the extension block or a metadata sector.
func (w *world) rawMap() error {
	comps := w.vol.components()
	zero, err := geomlib.ReadMetadata(comps[0].prov())
	if err != nil {
		return fmt.Errorf("raw bytes: %w", err)
	}
	for i, c := range comps {
		m, err := geomlib.ReadMetadata(c.prov())
		if err != nil || int(m.No) != i || int(m.Count) != len(comps) || m.Version != ondisk.VersionFenced ||
			m.VirtualSize != zero.VirtualSize || m.ID != zero.ID {
			return fmt.Errorf("raw bytes: component %d of %d has the metadata %+v, %w", i, len(comps), m, err)
		}
	}
	raw := make([]byte, zero.MapBytes())
	if _, err := comps[0].prov().ReadAt(raw, 0); err != nil {
		return fmt.Errorf("raw bytes: %w", err)
	}
	reserved := max(int64(len(raw)), int64(zero.ChunkReserved)*w.chunk)
	used := make(map[alloc.Phys]uint64)
	for vc := uint64(0); vc < zero.Entries(); vc++ {
		e := ondisk.DecodeEntry(raw[vc*ondisk.EntrySize:], w.vol.order)
		p := alloc.Phys{Comp: e.Component, Chunk: e.Chunk}
		word := w.vol.chunks.Load(vc).Mapping()
		if !e.Allocated() {
			if word != 0 {
				return fmt.Errorf("raw bytes: chunk %d is %v in memory and not in the map", vc, word.Phys())
			}
			continue
		}
		if word != chunkmap.WordOf(p) {
			return fmt.Errorf("raw bytes: chunk %d is %#x in memory and %v in the map", vc, word, p)
		}
		if other, twice := used[p]; twice {
			return fmt.Errorf("raw bytes: chunks %d and %d are both %v", other, vc, p)
		}
		used[p] = vc
		if int(p.Comp) >= len(comps) {
			return fmt.Errorf("raw bytes: chunk %d is %v of %d components", vc, p, len(comps))
		}
		from, to := int64(p.Chunk)*w.chunk, (int64(p.Chunk)+1)*w.chunk
		if c := comps[p.Comp].prov(); p.Comp == 0 && from < reserved || to > c.MediaSize()-int64(c.SectorSize()) {
			return fmt.Errorf("raw bytes: chunk %d is %v, which overlaps the map, the extension block or the metadata", vc, p)
		}
	}
	return nil
}

// fillUp opens the volume again and writes to every chunk that is not allocated
// until there is no space: what it held must stay.
func (w *world) fillUp() (err error) {
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return fmt.Errorf("open to be filled: %w", err)
	}
	if err = w.resumed(); err == nil {
		err = w.fillEmpty()
	}
	if err != nil {
		return errors.Join(err, w.vol.Close())
	}
	if err := w.endLife(); err != nil {
		return err
	}
	if w.vol, err = openDisks(w.cfg, w.disks); err != nil {
		return fmt.Errorf("open after filling: %w", err)
	}
	return w.vol.Close()
}

func (w *world) fillEmpty() error {
	end := min(w.size, w.vol.Size())
	for off := int64(0); off < end; off += w.chunk {
		if w.vol.chunks.Load(uint64(off / w.chunk)).Allocated() {
			continue
		}
		if err := w.change(off/unit, max(1, int64(w.sector)/unit), OpWrite, 0); err != nil {
			return fmt.Errorf("write after the crash: %w", err)
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	if _, err := w.readAll(w.model.at(w.rec.Len(), true)); err != nil {
		return fmt.Errorf("after filling: %w", err)
	}
	return nil
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
