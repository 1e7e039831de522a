package lease

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// world is a state of the model, which is everything that hosts, a network and a server can do with a lease and with
// what its owners write: whatever may happen next, happens, in a search of all states.
//
// A host does its next step now or later, or never: so it is stopped at any step for as
// long as may be. What it sends is done at any time until the bound, or never, whether it
// has an answer or not; a writing counts from the look at the clock that allowed it, so
// that a stop between that look and the sending is part of it. The server may lose once
// what it has not flushed. The owner may once move the lease to another place. Time goes
// by ticks; hosts' clocks go by rates of their own.
//
// An owner sends requests as long as it may, and what it sent last may be done until the
// bound. The model has failed when another host becomes the owner before that: it builds
// on what it has read.
type world struct {
	cells   [2]cell // where the lease is, or may be moved to
	place   uint8   // what the metadata says where it is
	epoch   uint8   // how many have become owners
	crashes uint8   // that may still be
	moves   uint8   // that may still be
	hosts   [3]host
}

// cell is a place of the lease: as it is read, and as the server has it after a crash.
type cell struct{ seen, flushed tag }

// tag is a lease, small.
type tag struct {
	owner, seq uint8
	released   bool
}

// host is a process, with what it has sent. Times in it are relative to now.
type host struct {
	m      Machine
	epoch  uint8 // as an owner, from 1
	since  uint8 // ticks since it sent what it sent last; more than the bound: that is done
	look   looking
	write  writing // that it waits for
	ghost  writing // that it has given up
	commit commit  // makes the metadata name the other place
	both   bool    // it writes both places
	placed bool    // and has written both
}

// looking is a look that the host has no answer of yet.
type looking struct {
	on   bool
	sent Time
	tag  tag
	at   uint8
}

type writing struct {
	on, landed, flushed bool
	both                bool
	place, age          uint8
	sent                Time
	tag                 tag
}

type commit struct {
	on  bool
	age uint8
}

// model is what is searched.
type model struct {
	hosts   int
	terms   Terms
	rates   [3]time.Duration // of a tick
	bound   uint8            // ticks within which what is sent is done
	crashes uint8
	moves   uint8
	writes  uint8 // of the lease by one owner
	epochs  uint8 // owners
	breaks  rule
	early   bool // the metadata is written before the lease is at its new place
	plain   bool // every writing is answered, and nobody releases a lease
	limit   int  // states; more fail the test
	dies    bool // host 0 is the owner from the beginning, and does nothing more
	// alike: hosts have the same clocks, so that states in which they have changed roles
	// are the same.
	alike bool

	known  map[stateID]struct{}
	todo   []world
	key    []byte
	other  []byte
	failed string
}

func (o *model) run(t *testing.T) (states int, failed string) {
	t.Helper()
	o.known = make(map[stateID]struct{})
	o.reach(o.first())
	for len(o.todo) > 0 && o.failed == "" {
		w := o.todo[len(o.todo)-1]
		o.todo = o.todo[:len(o.todo)-1]
		o.all(w)
		if len(o.known) > o.limit {
			t.Fatalf("more than %d states", o.limit)
		}
	}
	return len(o.known), o.failed
}

// first is the state in which nobody has done anything.
func (o *model) first() world {
	w := world{crashes: o.crashes, moves: o.moves}
	for i := range w.hosts[:o.hosts] {
		w.hosts[i].m = New(ondisk.Lease{Owner: uint64(i + 1), Interval: o.terms.Interval, Settle: o.terms.Settle}, Options{breaks: o.breaks})
		w.hosts[i].since = o.bound + 1
	}
	if o.dies {
		first := tag{1, 2, false}
		w.epoch, w.cells[0] = 1, cell{first, first}
		h := &w.hosts[0]
		h.epoch, h.since, h.m.me.Sequence = 1, 0, uint64(first.seq)
		h.m.state, h.m.owned, h.m.deadline = Owning, true, o.terms.lasts()
	}
	return w
}

// walk goes from state to state by chance, where there are too many to reach all.
func (o *model) walk(by *rand.Rand, steps int) (failed string) {
	w := o.first()
	for range steps {
		o.known, o.todo = make(map[stateID]struct{}), o.todo[:0]
		o.all(w)
		if o.failed != "" || len(o.todo) == 0 {
			break
		}
		w = o.todo[by.IntN(len(o.todo))]
	}
	return o.failed
}

// reach takes note of a state, to go on from it.
func (o *model) reach(w world) {
	if w.epoch > o.epochs {
		return
	}
	for i := range w.hosts[:o.hosts] {
		h := &w.hosts[i]
		if h.sends(o.breaks) {
			h.since = 0
		}
		if h.epoch > 0 && h.epoch < w.epoch && h.since <= o.bound {
			o.failed = fmt.Sprintf("host %d is the %d. owner, and what it sent is done when there is another: %+v", i, h.epoch, w)
			return
		}
		h.reduce(o.terms)
	}
	id := o.idOf(&w)
	if _, known := o.known[id]; known {
		return
	}
	o.known[id] = struct{}{}
	o.todo = append(o.todo, w)
}

// stateID stands for what pack tells of a state: half of its SHA-256, which no two of so
// many share.
type stateID [16]byte

// roles are the orders that three hosts can have.
var roles = []role{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}

// idOf is the same for states that are.
func (o *model) idOf(w *world) stateID {
	o.key = w.pack(o.key[:0], o.hosts, roles[0])
	for _, role := range roles[1:] {
		if !o.alike || o.hosts < 3 {
			break
		}
		if o.other = w.pack(o.other[:0], o.hosts, role); bytes.Compare(o.other, o.key) < 0 {
			o.key, o.other = o.other, o.key
		}
	}
	sum := sha256.Sum256(o.key)
	return stateID(sum[:16])
}

// sends reports whether the host sends requests of its volume.
func (h *host) sends(breaks rule) bool {
	switch {
	case h.m.Deadline() > 0:
		return true
	case breaks&breakDeadline != 0:
		return h.epoch > 0 && h.m.state == Owning
	case breaks&breakReplay != 0: // its connection was lost before
		return h.epoch > 0 && h.m.state == Owning
	}
	return false
}

// reduce makes states that go on alike the same state.
func (h *host) reduce(t Terms) {
	m := &h.m
	if m.state == Refused || m.state == Lost {
		*m = Machine{state: m.state, owned: m.owned}
		h.look, h.write.sent = looking{}, 0
		return
	}
	if m.state != Watching && m.state != Waiting {
		m.until = 0
	}
	if m.state != Watching && m.state != Owning {
		m.next = 0
	}
	if m.state == Owning {
		m.seen, m.still = Found{}, false
	}
	m.until, m.next, m.deadline = max(m.until, 0), max(m.next, 0), max(m.deadline, 0)
	long := -t.lasts() - 1
	m.look, h.look.sent, h.write.sent = max(m.look, long), max(h.look.sent, long), max(h.write.sent, long)
	if m.state == Owning && !m.may {
		m.look = 0
	}
}

// all reaches whatever can happen next.
func (o *model) all(w world) {
	for i := range o.hosts {
		if o.dies && i == 0 {
			continue
		}
		o.step(w, i)
		o.lands(w, i)
	}
	if w.crashes > 0 {
		o.crash(w)
	}
	o.tick(w)
}

// crash is one of the server: what it has not flushed is lost.
func (o *model) crash(w world) {
	w.crashes--
	for c := range w.cells {
		w.cells[c].seen = w.cells[c].flushed
	}
	for i := range w.hosts[:o.hosts] {
		if h := &w.hosts[i]; h.write.on && h.write.landed && !h.write.flushed {
			h.write = writing{}
			h.fail()
		}
	}
	o.reach(w)
}

// tick lets time pass, unless something must be done before.
func (o *model) tick(w world) {
	for i := range w.hosts[:o.hosts] {
		h := &w.hosts[i]
		for _, wr := range []*writing{&h.write, &h.ghost} {
			if wr.on && !wr.landed {
				if wr.age++; wr.age > o.bound {
					return
				}
			}
		}
		if h.commit.on {
			if h.commit.age++; h.commit.age > o.bound {
				return
			}
		}
		h.since = min(h.since+1, o.bound+1)
		for _, t := range []*Time{&h.m.until, &h.m.next, &h.m.look, &h.m.deadline, &h.look.sent, &h.write.sent} {
			*t -= o.rates[i]
		}
	}
	o.reach(w)
}

// step is what host i can do by itself.
func (o *model) step(w world, i int) {
	o.move(w, i)
	n := w
	h := &n.hosts[i]
	if h.look.on || h.write.on {
		return
	}
	switch a := h.m.Next(0); a.Deed {
	case Look:
		h.look = looking{on: true, tag: w.cells[w.place].seen, at: w.place}
		if other := w.cells[1-w.place].seen; h.both && other.owner != uint8(i+1) {
			h.look.tag = other // it looks at both
		}
	case Write:
		if uint8(a.Lease.Sequence) > o.writes {
			return
		}
		place := w.place
		if h.m.state == Taking {
			place = uint8(h.m.seen.Metadata)
		}
		h.m.HasSent()
		h.write = writing{on: true, tag: tag{uint8(i + 1), uint8(a.Lease.Sequence), false}, both: h.both, place: place}
	default:
		return
	}
	o.reach(n)
}

// move is how an owner moves the lease, and how it releases it.
func (o *model) move(w world, i int) {
	h := &w.hosts[i]
	busy := h.look.on || h.write.on || h.commit.on
	if h.m.Deadline() == 0 || busy {
		return
	}
	if w.moves > 0 {
		n := w
		m := &n.hosts[i]
		switch {
		case h.placed || o.early:
			n.moves--
			m.both, m.commit = true, commit{on: true}
			o.reach(n)
		case !h.both && uint8(m.m.me.Sequence) < o.writes && m.m.may:
			m.m.HasSent()
			m.both = true
			m.write = writing{on: true, both: true, tag: tag{uint8(i + 1), uint8(m.m.me.Sequence), false}}
			o.reach(n)
		}
	}
	if l, _, ok := h.m.Release(0); ok && !o.plain && !h.ghost.on && uint8(l.Sequence) <= o.writes {
		n := w
		m := &n.hosts[i]
		m.m.state, m.since = Refused, o.bound+1 // it ends, and all it sent is answered
		m.ghost = writing{on: true, both: h.both, place: w.place, tag: tag{uint8(i + 1), uint8(l.Sequence), true}}
		o.reach(n)
	}
}

// lands is what becomes of what host i has sent.
func (o *model) lands(w world, i int) {
	h := w.hosts[i]
	if h.look.on {
		n := w
		m := &n.hosts[i]
		m.look = looking{}
		m.m.HasLooked(h.look.sent, 0, h.look.found(o.terms))
		o.reach(n)
	}
	if h.write.on {
		o.writeLands(w, i)
	}
	if h.ghost.on {
		n := w
		n.hosts[i].ghost = writing{} // it never is done
		o.reach(n)
		n.put(h.ghost)
		n.flush(h.ghost)
		o.reach(n)
	}
	if h.commit.on {
		n := w
		n.hosts[i].commit = commit{}
		n.place = 1
		o.reach(n)
	}
}

// writeLands is what becomes of a writing of the lease.
func (o *model) writeLands(w world, i int) {
	h, n := w.hosts[i], w
	m := &n.hosts[i]
	switch {
	case h.write.flushed:
		o.answered(n, i)
		return
	case h.write.landed:
		m.write.flushed = true
		n.flush(h.write)
		o.reach(n)
		return
	case !h.ghost.on && !o.plain: // no answer, and it may still land
		m.ghost, m.write = h.write, writing{}
		m.fail()
		o.reach(n)
	}
	n = w
	m = &n.hosts[i]
	n.put(h.write)
	if m.write.landed = true; o.crashes == 0 {
		m.write.flushed = true
		n.flush(h.write)
	}
	o.reach(n)
	if o.breaks&breakUnflushed != 0 {
		o.answered(n, i)
	}
}

// fail tells the host that its writing failed. Who has not got the lease gives up.
func (h *host) fail() {
	if h.m.HasFailed(0); h.m.state != Owning {
		h.m.state = Refused
	}
}

// answered tells host i that its writing is done.
func (o *model) answered(n world, i int) {
	h := &n.hosts[i]
	sent := h.write.sent
	h.placed = h.placed || h.write.both
	h.write = writing{}
	h.m.HasWritten(sent, 0)
	if h.m.owned && h.epoch == 0 {
		n.epoch++
		h.epoch = n.epoch
	}
	o.reach(n)
}

// put makes the lease what was written, for those who read it.
func (w *world) put(wr writing) {
	for c := range w.cells {
		if wr.both || c == int(wr.place) {
			w.cells[c].seen = wr.tag
		}
	}
}

// flush makes durable what was written, if nothing was written over it.
func (w *world) flush(wr writing) {
	for c := range w.cells {
		if (wr.both || c == int(wr.place)) && w.cells[c].seen == wr.tag {
			w.cells[c].flushed = wr.tag
		}
	}
}

func (l looking) found(t Terms) Found {
	f := Found{Metadata: uint64(l.at)}
	if l.tag.owner != 0 {
		f.Lease = ondisk.Lease{Owner: uint64(l.tag.owner), Sequence: uint64(l.tag.seq), Released: l.tag.released, Interval: t.Interval, Settle: t.Settle}
	}
	return f
}

func bits(bs ...bool) (n byte) {
	for _, b := range bs {
		n <<= 1
		if b {
			n |= 1
		}
	}
	return n
}

// role is which host each one is, and so who an owner is.
type role [3]uint8

// of is what owner is called, 0 for nobody.
func (r role) of(owner uint8) uint8 {
	if owner == 0 {
		return 0
	}
	return r[owner-1] + 1
}

func (t tag) pack(b []byte, r role) []byte {
	return append(b, r.of(t.owner)<<5|t.seq<<1|bits(t.released))
}

// pack appends what tells two states apart, when the hosts have those roles.
func (w *world) pack(b []byte, hosts int, r role) []byte {
	for _, c := range w.cells {
		b = c.flushed.pack(c.seen.pack(b, r), r)
	}
	b = append(b, w.place, w.epoch, w.crashes, w.moves)
	for as := range uint8(hosts) {
		b = w.hosts[slices.Index(r[:], as)].pack(b, r)
	}
	return b
}

func (h *host) pack(b []byte, r role) []byte {
	m := &h.m
	b = append(b, byte(m.state), byte(m.me.Sequence), bits(m.may, m.still, m.owned, h.both, h.placed, h.commit.on, h.look.on),
		r.of(uint8(m.seen.Lease.Owner))<<5|byte(m.seen.Lease.Sequence)<<1|bits(m.seen.Lease.Released), byte(m.seen.Metadata), h.epoch, h.since,
		h.commit.age, h.look.at)
	for _, t := range []Time{m.until, m.next, m.look, m.deadline, h.look.sent, h.write.sent} {
		b = append(b, byte(int8(t)))
	}
	b = h.look.tag.pack(b, r)
	for _, wr := range []*writing{&h.write, &h.ghost} {
		b = append(b, bits(wr.on, wr.landed, wr.flushed, wr.both), wr.age, wr.place)
		b = wr.tag.pack(b, r)
	}
	return b
}

// small is the model of two hosts in which an interval is a tick.
func small() *model {
	return &model{hosts: 2, terms: Terms{10, 10}, rates: [3]time.Duration{10, 10, 10}, bound: 1, writes: 3, epochs: 2, limit: 30 << 20}
}

var clocks = [][3]time.Duration{{9, 11, 10}, {11, 9, 10}, {10, 10, 10}}

func TestNoTwoOwnersWithinTheBound(t *testing.T) {
	for name, change := range map[string]func(*model){
		"two hosts":             func(o *model) {},
		"a server that forgets": func(o *model) { o.crashes, o.writes = 1, 2 },
		"a lease that moves":    func(o *model) { o.moves, o.writes, o.plain = 1, 3, testing.Short() },
	} {
		t.Run(name, func(t *testing.T) {
			for i, rates := range clocks {
				if testing.Short() && i > 0 {
					return
				}
				o := small()
				if o.rates = rates; testing.Short() {
					o.writes = 2
				}
				change(o)
				start := time.Now()
				n, failed := o.run(t)
				if failed != "" {
					t.Errorf("clocks %v: %s", rates[:o.hosts], failed)
				}
				t.Logf("clocks %v: %d states in %v", rates[:o.hosts], n, time.Since(start).Round(time.Millisecond))
			}
		})
	}
}

var threeHosts = flag.Bool("lease.three", false, "explore all states of three hosts, which takes a quarter of an hour and a gigabyte")

// threeAlike is the model of three hosts with the same clocks, in which a tick is as long
// as an owner sends after a writing, and as what is sent may take. Each writes the lease
// twice, as one must to have it, and is answered at some time.
func threeAlike() *model {
	o := small()
	o.hosts, o.terms, o.rates, o.bound, o.writes, o.plain, o.alike = 3, Terms{10, 30}, [3]time.Duration{30, 30, 30}, 1, 2, true, true
	o.limit = 100 << 20
	return o
}

// TestNoTwoOfThreeOwnersWithinASmallBound reaches every state of two hosts that want to be
// the owner beside a third, which is and has stopped for good; with -lease.three every state
// that the three can be in.
func TestNoTwoOfThreeOwnersWithinASmallBound(t *testing.T) {
	explore := func(name string, change func(*model)) {
		o := threeAlike()
		change(o)
		start := time.Now()
		n, failed := o.run(t)
		if failed != "" {
			t.Errorf("%s: %s", name, failed)
		}
		t.Logf("three hosts, %s: %d states in %v", name, n, time.Since(start).Round(time.Millisecond))
	}
	for i, rates := range clocks {
		if testing.Short() && i > 0 {
			break
		}
		explore(fmt.Sprintf("the owner has stopped, clocks %v", rates), func(o *model) {
			o.dies, o.epochs, o.plain, o.alike = true, 3, false, rates[1] == rates[2]
			for i := range o.rates {
				o.rates[i] = 3 * rates[i]
			}
		})
	}
	if *threeHosts {
		explore("all of them go on", func(*model) {})
	}
	for name, change := range map[string]func(*model){
		"no second reading": func(o *model) { o.breaks = breakReadBack },
		"beyond the bound":  func(o *model) { o.bound = 6 }, // two terms are five ticks
	} {
		o := threeAlike()
		o.dies, o.epochs = true, 3
		change(o)
		if _, failed := o.run(t); failed == "" {
			t.Errorf("%s: nobody notices", name)
		}
	}
}

// There are too many states of three hosts whose clocks differ, and who write more: these
// are some, as chance has it.
func TestNoTwoOfThreeOwnersWithinTheBound(t *testing.T) {
	walks := 20000
	if testing.Short() {
		walks = 3000
	}
	try := func(breaks rule) string {
		by := rand.New(rand.NewPCG(1, 2))
		for i := range walks {
			o := small()
			o.hosts, o.rates, o.crashes, o.moves, o.epochs, o.writes, o.breaks = 3, clocks[i%len(clocks)], 1, 1, 3, 5, breaks
			if failed := o.walk(by, 150); failed != "" {
				return failed
			}
		}
		return ""
	}
	if failed := try(0); failed != "" {
		t.Error(failed)
	}
	if try(breakReadBack) == "" {
		t.Error("without a second reading nobody notices")
	}
}

// notices runs the model by all clocks, and reports whether it fails by one of them.
func notices(t *testing.T, change func(*model)) bool {
	for _, rates := range clocks {
		o := small()
		o.rates = rates
		change(o)
		if n, failed := o.run(t); failed != "" {
			t.Logf("noticed after %d states", n)
			return true
		}
	}
	return false
}

func TestBeyondTheBoundALeaseAloneIsNoFence(t *testing.T) {
	if !notices(t, func(o *model) { o.bound = 3 }) {
		t.Error("requests that take three times as long as they may: nothing is lost")
	}
}

func TestEachRuleOfTheLeaseIsNeeded(t *testing.T) {
	for name, change := range map[string]func(*model){
		"no second reading":                             func(o *model) { o.breaks = breakReadBack },
		"a writing believed without a flush":            func(o *model) { o.breaks, o.crashes, o.writes = breakUnflushed, 1, 2 },
		"sending on after the deadline":                 func(o *model) { o.breaks = breakDeadline },
		"replay before the lease is read":               func(o *model) { o.breaks = breakReplay },
		"going on with the old map after another owner": func(o *model) { o.breaks, o.writes = breakOldMap, 4 },
		"clocks that all go the same":                   func(o *model) { o.breaks = breakClocks },
		"a brief wait after a slow writing":             func(o *model) { o.breaks = breakQuick },
		"moved before it is at its new place":           func(o *model) { o.early, o.moves = true, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			if !notices(t, change) {
				t.Error("nobody notices")
			}
		})
	}
}
