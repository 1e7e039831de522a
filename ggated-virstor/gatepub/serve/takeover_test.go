package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

const (
	machineSectors = 24
	chunkSectors   = 4
)

// medium is what outlives a daemon. A chunk that was never written needs space.
type medium struct {
	mu        sync.Mutex
	data      [machineSectors]uint64 // the sectors' contents: a number each
	allocated [machineSectors / chunkSectors]bool
	space     int
}

// daemon is one process's view of the medium: a Disk that some goroutines
// work for, sector by sector, and that can die at any of them.
type daemon struct {
	m      *medium
	report func(string)
	queue  chan *virstor.Request
	wg     sync.WaitGroup

	mu     sync.Mutex
	dead   bool
	passed uint64             // reads up to this number did not wait for what is kept back
	limbo  []*virstor.Request // submitted, without effect from here on
	held   []*virstor.Request
	// running are the requests that this side works on. A request that came
	// later, and after the given number of others, must not run beside one.
	running map[*slot]uint64
}

func newDaemon(m *medium, report func(string), readsOnly bool) *daemon {
	d := &daemon{m: m, report: report, queue: make(chan *virstor.Request, 1000), running: map[*slot]uint64{}}
	if readsOnly {
		d.passed = math.MaxUint64
	}
	for range 3 {
		d.wg.Go(func() {
			for r := range d.queue {
				d.perform(r)
			}
		})
	}
	return d
}

// Submit checks the promises of the publication, and does some requests inline.
func (d *daemon) Submit(r *virstor.Request) {
	s := r.Done.(*slot)
	d.mu.Lock()
	for other, since := range d.running {
		switch {
		case s.number <= since: // it was let go while the other was held
		case s.kind == kindRead && s.number <= d.passed, other.kind == kindRead && other.number <= d.passed:
		case s.kind == kindFlush:
			if other.kind == kindWrite && other.number < s.number {
				d.report(fmt.Sprintf("flush %d beside the earlier write %d", s.number, other.number))
			}
		case other.kind == kindRead && s.kind == kindRead, other.kind == kindFlush:
		case other.lo < s.hi && s.lo < other.hi:
			d.report(fmt.Sprintf("request %d beside %d, which it overlaps", s.number, other.number))
		}
	}
	d.running[s] = 0
	inline := s.number%3 == 0
	d.mu.Unlock()
	if inline {
		d.perform(r)
	} else {
		d.queue <- r
	}
}

// needsSpace allocates what the write needs, or reports that it cannot.
func (d *daemon) needsSpace(r *virstor.Request) bool {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	first, last := r.Offset/sector/chunkSectors, (r.Offset+r.Length-1)/sector/chunkSectors
	need := 0
	for c := first; c <= last; c++ {
		if !d.m.allocated[c] {
			need++
		}
	}
	if need > d.m.space {
		return true
	}
	d.m.space -= need
	for c := first; c <= last; c++ {
		d.m.allocated[c] = true
	}
	return false
}

func (d *daemon) perform(r *virstor.Request) {
	s := r.Done.(*slot)
	if r.Op == virstor.OpWrite {
		d.mu.Lock()
		if !d.dead && d.needsSpace(r) {
			delete(d.running, s)
			s.Held(r)
			d.held = append(d.held, r)
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
	for at := int64(0); at < r.Length; at += sector {
		d.mu.Lock()
		if d.dead {
			d.limbo = append(d.limbo, r)
			d.mu.Unlock()
			return
		}
		d.m.mu.Lock()
		cell := &d.m.data[(r.Offset+at)/sector]
		switch r.Op {
		case virstor.OpRead:
			binary.NativeEndian.PutUint64(r.Data[at:], *cell)
		case virstor.OpWrite:
			*cell = binary.NativeEndian.Uint64(r.Data[at:])
		case virstor.OpDelete:
			*cell = 0
		}
		d.m.mu.Unlock()
		d.mu.Unlock()
		runtime.Gosched()
	}
	d.mu.Lock()
	if d.dead {
		d.limbo = append(d.limbo, r)
		d.mu.Unlock()
		return
	}
	delete(d.running, s)
	d.mu.Unlock()
	r.Err = nil
	s.Complete(r)
}

// grow adds space for n chunks and tries the held writes again.
func (d *daemon) grow(n int) {
	d.m.mu.Lock()
	d.m.space += n
	d.m.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.held {
		s := r.Done.(*slot)
		s.Resumed(r)
		d.running[s] = s.p.taken.Load()
		d.queue <- r
	}
	d.held = nil
}

// kill lets nothing have an effect any more.
func (d *daemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// bury completes what will never be done, so that the publication's memory is
// given back. Its answers go nowhere.
func (d *daemon) bury() {
	close(d.queue)
	d.wg.Wait()
	d.mu.Lock()
	rs := slices.Concat(d.limbo, d.held)
	d.limbo, d.held = nil, nil
	d.mu.Unlock()
	for _, r := range rs {
		r.Err = virstor.ErrClosed
		r.Done.Complete(r)
	}
}

// cell is one operation on one sector, for the check.
type cell struct {
	sector int64
	write  bool
	value  uint64
}

// cells: every sector is a register.
var cells = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, machineSectors)
		for _, op := range history {
			n := op.Input.(cell).sector
			parts[n] = append(parts[n], op)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, _ any) (bool, any) {
		c := input.(cell)
		if c.write {
			return true, c.value
		}
		return c.value == state.(uint64), state
	},
	Equal: func(a, b any) bool { return a == b },
}

// machine runs requests against daemons that come and go.
type machine struct {
	k    *gatetest.Kernel
	dev  *gatetest.Dev
	m    *medium
	g    *gate.Gate
	d    *daemon
	p    *Publication
	open []*inFlight
	wg   sync.WaitGroup

	mu       sync.Mutex
	clock    int64
	history  []porcupine.Operation
	problems []string
}

type inFlight struct {
	call *gatetest.Call
	done chan struct{}
}

func (m *machine) report(problem string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problems = append(m.problems, problem)
}

func (m *machine) tick() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock++
	return m.clock
}

func (m *machine) start(t *rapid.T) {
	cfg := Config{
		Receivers:  rapid.IntRange(1, 4).Draw(t, "receivers"),
		MayBlock:   rapid.Bool().Draw(t, "may block"),
		Slots:      rapid.IntRange(4, 12).Draw(t, "slots"),
		BufferSize: 64 << 10,
		ReadsOnly:  rapid.Bool().Draw(t, "reads only"),
	}
	m.g = m.k.Open()
	m.d = newDaemon(m.m, m.report, cfg.ReadsOnly)
	first := new(turn)
	if rapid.Bool().Draw(t, "straight") {
		first = lonesTurn()
	}
	p, err := start(m.g, 0, m.d, cfg, first)
	if err != nil {
		t.Fatal(err)
	}
	m.p = p
}

// issue sends one request and records it when it is answered.
func (m *machine) issue(t *rapid.T, cmd gate.BIO, value uint64) {
	c := gatetest.NewCall()
	c.Cmd = cmd
	from, n := int64(0), int64(0)
	if cmd != gate.Flush {
		from = rapid.Int64Range(0, machineSectors-1).Draw(t, "from")
		n = rapid.Int64Range(1, min(6, machineSectors-from)).Draw(t, "sectors")
	}
	c.Offset, c.Length, c.Data = from*sector, n*sector, make([]byte, n*sector)
	for i := range n {
		binary.NativeEndian.PutUint64(c.Data[i*sector:], value+uint64(i))
	}
	f := &inFlight{c, make(chan struct{})}
	m.open = append(m.open, f)
	called := m.tick()
	m.dev.Issue(c)
	m.wg.Go(func() {
		defer close(f.done)
		err := c.Wait()
		returned := m.tick()
		if err != nil {
			m.report(fmt.Sprintf("%v of sectors %d+%d: %v", cmd, from, n, err))
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for i := range n {
			op := cell{sector: from + i, write: cmd != gate.Read}
			if cmd != gate.Delete {
				op.value = binary.NativeEndian.Uint64(c.Data[i*sector:])
			}
			m.history = append(m.history, porcupine.Operation{
				ClientId: len(m.history), Input: op, Call: called, Return: returned})
		}
	})
}

func (m *machine) serveAll() {
	m.p.ServeAll()
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	m.d.passed = min(m.d.passed, m.p.taken.Load())
}

func (m *machine) finish(t *rapid.T) {
	m.serveAll()
	m.d.grow(machineSectors)
	all := make(chan struct{})
	go func() { m.wg.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(time.Minute):
		s, _ := m.k.Peek(0)
		t.Fatalf("requests are not answered: %+v, %+v", m.p.Stats(), s)
	}
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			k: gatetest.New(gatetest.Options{
				SignalCancels:   rapid.Bool().Draw(t, "signal cancels"),
				DeleteNeedsRoom: rapid.Bool().Draw(t, "delete needs room"),
			}),
			m: &medium{space: rapid.IntRange(0, 3).Draw(t, "space")},
		}
		defer m.k.Close()
		g := m.k.Open()
		if _, err := g.Create(gate.CreateOptions{Unit: 0, MediaSize: machineSectors * sector, SectorSize: sector}); err != nil {
			t.Fatal(err)
		}
		dev, err := m.k.OpenDev("ggate0", gatetest.Reader|gatetest.Writer)
		if err != nil {
			t.Fatal(err)
		}
		m.dev = dev
		m.start(t)

		value := uint64(0)
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "write", "read", "read", "read", "delete", "flush",
				"wait", "crash", "restart", "signal", "grow", "serve"}).Draw(t, "step") {
			case "write":
				value += 100
				m.issue(t, gate.Write, value)
			case "read":
				m.issue(t, gate.Read, 0)
			case "delete":
				m.issue(t, gate.Delete, 0)
			case "flush":
				m.issue(t, gate.Flush, 0)
			case "wait": // for the oldest, unless space or leave is needed for it
				if len(m.open) > 0 && m.p.Stats().Held == 0 {
					select {
					case <-m.open[0].done:
						m.open = m.open[1:]
					case <-time.After(time.Millisecond):
					}
				}
			case "crash":
				m.d.kill()
				if err := m.p.Abandon(t.Context()); err != nil {
					t.Fatal(err)
				}
				m.d.bury()
				<-m.p.Done()
				m.start(t)
			case "restart":
				if err := m.p.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				m.d.kill()
				m.d.bury()
				m.start(t)
			case "signal":
				for range 3 {
					m.k.Signal(0)
				}
			case "grow":
				m.d.grow(1)
			case "serve":
				m.serveAll()
			}
		}
		m.finish(t)
		if err := m.p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.d.kill()
		m.d.bury()
		if len(m.problems) > 0 {
			t.Fatal(strings.Join(m.problems, "\n"))
		}
		if res := porcupine.CheckOperationsTimeout(cells, m.history, time.Minute); res != porcupine.Ok {
			t.Fatalf("%d sector operations: %v", len(m.history), res)
		}
		if s, _ := m.k.Peek(0); s.Taken+s.Waiting != 0 {
			t.Fatalf("left behind: %+v", s)
		}
	})
}
