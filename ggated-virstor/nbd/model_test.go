package nbd

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"pgregory.net/rapid"
)

const (
	simCell  = 64 << 10 // half a chunk
	simCells = 16
)

// clash is what a machine found wrong.
type clash struct{ error }

// machine drives several clients of one volume, and remembers what they were told.
type machine struct {
	pick    func(n int) int // 0 to n-1
	rig     *rig
	vol     *virstor.Volume
	disk    *slowDisk
	order   *order
	clients []*simClient
	now     int64
	ops     []simOp
	cookies uint64
	grown   bool
}

// simOp is what one request did to one cell.
type simOp struct {
	client      int
	cookie      uint64
	cell        int
	cmd         uint16
	value       byte // written, or read
	call, ended int64
	unsure      bool  // its client was never told that it was done
	over        bool  // nothing of it is to be seen: it was held, and what came later is done
	passed      []int // ops of held writes of this cell that it did not wait for
}

// simClient is a client, and those of its requests that are not answered.
type simClient struct {
	number int
	peer   net.Conn

	mu      sync.Mutex
	pending map[uint64][]int // indices of machine.ops by cookie
	reads   map[uint64]int   // bytes to come by cookie
	answers []simAnswer
}

type simAnswer struct {
	cookie uint64
	errno  uint32
	data   []byte
}

// receive takes answers until the connection ends.
func (c *simClient) receive() {
	head := make([]byte, proto.SimpleSize)
	for {
		if _, err := io.ReadFull(c.peer, head); err != nil {
			return
		}
		a := simAnswer{cookie: binary.BigEndian.Uint64(head[8:]), errno: binary.BigEndian.Uint32(head[4:])}
		c.mu.Lock()
		n := c.reads[a.cookie]
		c.mu.Unlock()
		if n > 0 && a.errno == 0 {
			a.data = make([]byte, n)
			if _, err := io.ReadFull(c.peer, a.data); err != nil {
				return
			}
		}
		c.mu.Lock()
		c.answers = append(c.answers, a)
		c.mu.Unlock()
	}
}

// await waits for what must come. With a rule broken it often never does.
func (m *machine) await(what string, ok func() bool) {
	wait := patience
	if m.order.breaks != 0 {
		wait = 5 * time.Second
	}
	for end := time.Now().Add(wait); !ok(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			panic(clash{fmt.Errorf("never: %s", what)})
		}
	}
}

func (m *machine) tick() int64 { m.now++; return m.now }

// collect notes the answers that came.
func (m *machine) collect() {
	for _, c := range m.clients {
		c.mu.Lock()
		for _, a := range c.answers {
			for i, op := range c.pending[a.cookie] {
				o := &m.ops[op]
				o.ended = m.tick()
				for _, h := range o.passed {
					// A trim may leave what the held write did before it was held.
					m.ops[h].over = m.ops[h].over || o.cmd != proto.CmdTrim
					m.ops[h].unsure = true
				}
				if o.cmd == proto.CmdRead && a.errno == 0 {
					o.value = a.data[i*simCell]
				}
				if a.errno != 0 {
					panic(clash{fmt.Errorf("client %d: error %d", c.number, a.errno)})
				}
			}
			delete(c.pending, a.cookie)
			delete(c.reads, a.cookie)
		}
		c.answers = nil
		c.mu.Unlock()
	}
}

// quiet waits until all that can be done is done: what is left is kept by the slow
// disk, held, or waits.
func (m *machine) quiet() {
	m.await("the disk comes to rest", func() bool {
		m.order.mu.Lock()
		running := 0
		for _, sp := range m.order.spans {
			if sp.r.stage != waiting {
				running++
			}
		}
		rests := running == m.disk.kept() && m.order.ready.first == nil && !m.order.submitting
		m.order.mu.Unlock()
		return rests
	})
}

func (m *machine) connect() {
	if len(m.clients) == 4 {
		return
	}
	p := m.rig.connect()
	p.enter("disk")
	p.SetDeadline(never)
	c := &simClient{number: int(m.tick()), peer: p.Conn, pending: make(map[uint64][]int), reads: make(map[uint64]int)}
	go c.receive()
	m.clients = append(m.clients, c)
}

// send sends a request of random cells, and waits until the server has taken it.
func (m *machine) send(cmd uint16, flags uint16, slow bool) {
	if len(m.clients) == 0 {
		return
	}
	c := m.clients[m.pick(len(m.clients))]
	first := m.pick(simCells)
	n := 1 + m.pick(min(4, simCells-first))
	m.cookies++
	cookie, value := m.cookies, byte(0)
	q := proto.Request{Type: cmd, Flags: flags, Cookie: cookie, Offset: uint64(first * simCell), Length: uint64(n * simCell)}
	b := q.Append(nil)
	if cmd == proto.CmdWrite {
		value = byte(1 + m.cookies%250)
		b = append(b, bytes.Repeat([]byte{value}, n*simCell)...)
	}
	c.mu.Lock()
	for i := range n {
		c.pending[cookie] = append(c.pending[cookie], len(m.ops))
		m.ops = append(m.ops, simOp{client: c.number, cookie: cookie, cell: first + i, cmd: cmd, value: value, call: m.tick()})
	}
	if cmd == proto.CmdRead {
		c.reads[cookie] = n * simCell
	}
	c.mu.Unlock()
	if slow {
		m.disk.keep(func(r *virstor.Request) bool { return r.Op != virstor.OpRead && r.Op != virstor.OpFlush })
	}
	held, mine := m.heldOps(), m.ops[len(m.ops)-n:]
	m.write(c, b)
	m.barrier(c)
	m.disk.keep(nil)
	still := m.heldOps() // chunks that were freed may have let some go on
	if cmd != proto.CmdRead && !m.waits(cookie) {
		for i := range mine {
			for _, h := range held {
				if m.ops[h].cell == mine[i].cell && slices.Contains(still, h) {
					mine[i].passed = append(mine[i].passed, h)
				}
			}
		}
	}
	m.exhaust()
}

// heldOps are the ops of the writes that are held.
func (m *machine) heldOps() (ops []int) {
	cookies := make(map[uint64]bool)
	m.order.mu.Lock()
	for h := m.order.held.first; h != nil; h = h.after {
		cookies[h.cookie] = true
	}
	m.order.mu.Unlock()
	for i, op := range m.ops {
		if cookies[op.cookie] {
			ops = append(ops, i)
		}
	}
	return ops
}

func (m *machine) waits(cookie uint64) bool {
	m.order.mu.Lock()
	defer m.order.mu.Unlock()
	for w := m.order.waiting.first; w != nil; w = w.after {
		if w.cookie == cookie {
			return true
		}
	}
	return false
}

// exhaust waits for all that can be done, and notes the answers.
func (m *machine) exhaust() {
	m.quiet()
	for _, h := range m.heldOps() {
		m.ops[h].passed = nil // what it passed may go on before it
	}
	for _, c := range m.clients {
		m.barrier(c)
	}
	m.collect()
}

func (m *machine) write(c *simClient, b []byte) {
	if _, err := c.peer.Write(b); err != nil {
		panic(clash{fmt.Errorf("client %d: %w", c.number, err)})
	}
}

// barrier asks for something that is answered as soon as it is read.
func (m *machine) barrier(c *simClient) {
	m.cookies++
	cookie := m.cookies
	m.write(c, proto.Request{Type: proto.CmdCache, Cookie: cookie, Length: 1}.Append(nil))
	m.await("an answer to what waits for nothing", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, a := range c.answers {
			if a.cookie == cookie {
				c.answers = append(c.answers[:i], c.answers[i+1:]...)
				return true
			}
		}
		return false
	})
}

// flush must be answered whatever else is under way.
func (m *machine) flush() {
	if len(m.clients) == 0 {
		return
	}
	c := m.clients[m.pick(len(m.clients))]
	m.cookies++
	cookie := m.cookies
	m.write(c, proto.Request{Type: proto.CmdFlush, Cookie: cookie}.Append(nil))
	m.await("a flush", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, a := range c.answers {
			if a.cookie == cookie {
				return true
			}
		}
		return false
	})
}

// end ends a client in one way or another, and waits until the server knows.
func (m *machine) end() {
	if len(m.clients) == 0 {
		return
	}
	i := m.pick(len(m.clients))
	c := m.clients[i]
	m.clients = append(m.clients[:i], m.clients[i+1:]...)
	before := m.rig.Conns("disk")
	switch m.pick(3) {
	case 0:
		c.peer.Close()
	case 1:
		m.write(c, proto.Request{Type: proto.CmdDisc}.Append(nil))
	case 2:
		c.peer.(*net.UnixConn).CloseWrite()
	}
	m.await("the server knows that a client is gone", func() bool { return m.rig.Conns("disk") < before })
	m.await("a dead client holds nothing", func() bool {
		m.order.mu.Lock()
		defer m.order.mu.Unlock()
		alive := 0
		for h := m.order.held.first; h != nil; h = h.after {
			if h.conn.gone && m.order.breaks&breakHeldEnds == 0 {
				return false
			}
			alive++
		}
		return m.vol.Status().Held.Count == alive
	})
	c.peer.Close()
	m.await("its connection is closed", func() bool { return m.rig.Conns("disk") < before })
	c.mu.Lock()
	defer c.mu.Unlock()
	at := m.tick()
	for _, ops := range c.pending {
		for _, op := range ops {
			m.ops[op].ended, m.ops[op].unsure = at, true
			for _, h := range m.ops[op].passed {
				m.ops[h].unsure = true
			}
		}
	}
	c.answers = nil
}

// space makes room for n chunks.
func (m *machine) space(n int64) {
	s := m.vol.Status()
	if err := m.vol.SetReserve(max(0, min(s.Reserved, int64(s.Free))-n)); err != nil {
		panic(clash{err})
	}
	m.exhaust()
}

// grow makes the volume larger.
func (m *machine) grow() {
	if m.grown || m.order.orphans.Load() > 0 {
		return
	}
	m.grown = true
	if err := m.vol.Resize(m.vol.Size()+64*2*simCell, false, virstor.JobOptions{}); err != nil {
		panic(clash{err})
	}
	m.await("the volume has grown", func() bool {
		j, _ := m.vol.Job()
		return j.State != virstor.JobRunning
	})
}

func (m *machine) step() {
	switch m.pick(14) {
	case 0, 1:
		m.connect()
	case 2, 3, 4:
		flags := uint16(m.pick(2)) * proto.CmdFlagFUA
		m.send(proto.CmdWrite, flags, m.pick(3) == 0)
	case 5:
		m.send(proto.CmdWriteZeroes, uint16(m.pick(2))*proto.CmdFlagNoHole, m.pick(3) == 0)
	case 6:
		m.send(proto.CmdTrim, 0, m.pick(3) == 0)
	case 7, 8, 9:
		m.send(proto.CmdRead, 0, false)
	case 10:
		m.flush()
	case 11:
		m.disk.letGo()
		m.exhaust()
	case 12:
		m.end()
	case 13:
		if m.pick(4) == 0 {
			m.space(1)
		}
	}
}

// finish answers all there is, and reads what came of it.
func (m *machine) finish() {
	m.grow()
	m.disk.letGo()
	m.exhaust()
	m.space(1 << 20)
	m.await("nothing is held", func() bool { return m.vol.Status().Held.Count == 0 })
	m.exhaust()
	m.connect()
	for range 4 {
		m.send(proto.CmdRead, 0, false)
	}
	m.await("everything is answered", func() bool {
		m.exhaust()
		for _, c := range m.clients {
			c.mu.Lock()
			n := len(c.pending)
			c.mu.Unlock()
			if n > 0 {
				return false
			}
		}
		return true
	})
}

// check asks whether each cell was a register: what was never answered may have
// been done, but no later than its client's end.
func (m *machine) check() error {
	nondet := porcupine.NondeterministicModel{
		Init: func() []any { return []any{byte(0)} },
		Step: func(state, in, _ any) []any {
			op := in.(simOp)
			after := []any{op.value}
			switch {
			case op.over:
				return []any{state}
			case op.cmd == proto.CmdRead && (op.unsure || op.value == state.(byte)):
				return []any{state}
			case op.cmd == proto.CmdRead:
				return nil
			case op.cmd == proto.CmdTrim:
				after = append(after, state)
			case op.unsure:
				after = append(after, state)
			}
			return after
		},
	}
	model := nondet.ToModel()
	for cell := range simCells {
		var history []porcupine.Operation
		for _, op := range m.ops {
			if op.cell == cell {
				history = append(history, porcupine.Operation{ClientId: op.client, Input: op, Call: op.call, Return: op.ended})
			}
		}
		if !porcupine.CheckOperations(model, history) {
			return fmt.Errorf("cell %d is no register: %+v", cell, history)
		}
	}
	return nil
}

// runMachine takes steps, and returns what was wrong.
func runMachine(t *testing.T, steps int, breaks orderRule, pick func(int) int) (err error) {
	t.Run("run", func(t *testing.T) { err = runOnce(t, steps, breaks, pick) })
	return err
}

func runOnce(t *testing.T, steps int, breaks orderRule, pick func(int) int) (err error) {
	const chunk = 2 * simCell
	v := newVolume(t, 64*chunk, chunk, 4<<20, virstor.Config{})
	if _, err := v.WriteAt(make([]byte, 4*chunk), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.SetReserve(v.Status().Free); err != nil {
		t.Fatal(err)
	}
	d := &slowDisk{Disk: v}
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	m := &machine{pick: pick, rig: r, vol: v, disk: d, order: r.exports["disk"].order}
	m.order.breaks = breaks
	defer func() {
		seen.add(m)
		if p := recover(); p != nil {
			c, ok := p.(clash)
			if !ok {
				panic(p)
			}
			err = c.error
		}
		for _, c := range m.clients {
			c.peer.Close()
		}
		d.letGo()
	}()
	m.connect()
	for range steps {
		m.step()
	}
	m.finish()
	return m.check()
}

// TestClientsThatDieAndComeBack: several clients write, trim, zero, flush and read
// the same ranges of a volume that is full and a disk that is slow, and end with
// requests held, waiting and at work. Nobody waits for ever, and nothing is done
// after the end of who asked for it.
func TestClientsThatDieAndComeBack(t *testing.T) {
	tb := t
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.IntRange(5, 60).Draw(t, "steps")
		choice := rapid.IntRange(0, 1<<20)
		if err := runMachine(tb, steps, 0, func(n int) int { return choice.Draw(t, "pick") % n }); err != nil {
			t.Fatal(err)
		}
	})
}

// tally counts what machines did.
type tally struct{ requests, unanswered, passed int }

// seen is what all machines of this process did.
var seen tally

func (s *tally) add(m *machine) {
	s.requests += int(m.cookies)
	for _, op := range m.ops {
		if op.unsure && op.cmd != proto.CmdRead {
			s.unanswered++
		}
		s.passed += len(op.passed)
	}
}

var (
	clientsDuration = flag.Duration("clients.duration", 0, "how long TestClientsSoak goes on")
	clientsSeed     = flag.Uint64("clients.seed", 1, "of TestClientsSoak's first run")
)

// TestClientsSoak runs one machine after the other, each from a seed of its own.
func TestClientsSoak(t *testing.T) {
	if *clientsDuration == 0 {
		t.Skip("without -clients.duration")
	}
	before, runs := seen, uint64(0)
	for end := time.Now().Add(*clientsDuration); time.Now().Before(end); runs++ {
		seed := *clientsSeed + runs
		if err := runMachine(t, 80, 0, rand.New(rand.NewPCG(seed, 1)).IntN); err != nil {
			t.Fatalf("%v\nreplay: go test ./ggated-virstor/nbd -run '^TestClientsSoak$' -clients.duration=1ns -clients.seed=%d", err, seed)
		}
	}
	fmt.Printf("soak: clients that die: %d runs, %d requests, %d changes of blocks not answered at their client's end, %d over held writes\n",
		runs, seen.requests-before.requests, seen.unanswered-before.unanswered, seen.passed-before.passed)
}

// TestEachRuleOfTheOrder: a machine notices when one of them is broken.
func TestEachRuleOfTheOrder(t *testing.T) {
	for what, rule := range map[string]orderRule{
		"nobody waits for an orphan":                    breakOrphans,
		"what a dead client had held is done later":     breakHeldEnds,
		"a held write overwrites what came later":       breakLater,
		"what a dead client had held stays and is kept": breakFree,
	} {
		t.Run(what, func(t *testing.T) {
			for seed := range uint64(200) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				if err := runMachine(t, 80, rule, rnd.IntN); err != nil {
					t.Logf("seed %d: %.200v", seed, err)
					return
				}
			}
			t.Error("not noticed")
		})
	}
}
