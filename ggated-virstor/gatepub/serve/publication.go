package serve

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// Publication serves one unit from one disk.
type Publication struct {
	gate      *gate.Gate
	unit      int
	disk      Disk
	log       *slog.Logger
	slots     int
	memory    []byte // all buffers
	recv      []*receiver
	begun     time.Time
	answering *counter // goroutines in Disk.Submit or in DONE; closed: no more of these

	taken  atomic.Uint64
	failed atomic.Uint64

	stopOnce sync.Once
	stop     chan struct{} // closed: receivers are to end
	out      chan struct{} // closed: they have
	done     chan struct{} // closed: and nothing but what is held is under way

	// unanswered is how many are taken, neither answered nor held nor served straight, and
	// ending how many of these are being answered. They change under mu, but that a request
	// is about to be answered is told before.
	unanswered atomic.Int64
	ending     atomic.Int64
	readsOnly  atomic.Bool // as order.readsOnly, which it follows under mu

	turns chan *turn // capacity 1: the turn, unless somebody has it
	dog   watchdog
	freed chan struct{} // capacity 1: a slot came into the empty pool

	// mu is never held in a call of the disk or the gate.
	mu        sync.Mutex
	order     order
	ready     list      // may run, for the dispatcher
	wake      sync.Cond // ready or ended changed
	pool      []*slot   // the last used is the first to be used again
	starved   bool      // a receiver waits for freed
	receivers int
	held      int
	heldBytes int64
	ended     bool
	err       error
}

// Start serves unit from disk until Stop, or until the unit is gone. First it
// has the kernel queue again what a predecessor took and did not answer: the
// caller has proved that the predecessor is dead. The gate stays the caller's,
// and open until Done.
func Start(g *gate.Gate, unit int, disk Disk, cfg Config) (*Publication, error) {
	return start(g, unit, disk, cfg, new(turn))
}

// start is Start, and t what the first turn knows.
func start(g *gate.Gate, unit int, disk Disk, cfg Config, t *turn) (*Publication, error) {
	fail := func(err error) (*Publication, error) {
		return nil, fmt.Errorf("serve unit %d: %w", unit, err)
	}
	if err := cfg.complete(); err != nil {
		return fail(err)
	}
	memory, err := gate.NewBuffer(cfg.Slots * cfg.BufferSize)
	if err != nil {
		return fail(err)
	}
	p := &Publication{
		gate:      g,
		unit:      unit,
		disk:      disk,
		log:       cfg.Log,
		slots:     cfg.Slots,
		memory:    memory,
		begun:     time.Now(),
		answering: newCounter(),
		stop:      make(chan struct{}),
		out:       make(chan struct{}),
		done:      make(chan struct{}),
		turns:     make(chan *turn, 1),
		dog:       watchdog{rouse: make(chan struct{}, 1)},
		freed:     make(chan struct{}, 1),
		receivers: cfg.Receivers,
	}
	p.wake.L = &p.mu
	p.order.readsOnly = cfg.ReadsOnly
	p.readsOnly.Store(cfg.ReadsOnly)
	p.order.spans = make([]span, 0, cfg.Slots)
	for n := cfg.BufferSize; len(memory) > 0; memory = memory[n:] {
		p.pool = append(p.pool, &slot{p: p, buf: memory[:n:n]})
	}
	if err := g.Cancel(unit, 0); err != nil {
		p.freeMemory()
		return fail(err)
	}
	for range cfg.Receivers {
		p.recv = append(p.recv, &receiver{Receiver: g.NewReceiver(unit)})
	}
	if cfg.MayBlock {
		t.policy.standIns.Store(int32(cfg.Receivers - 1))
		go p.dog.watch(p.stop, &p.taken, func() { p.passOn(t) })
	}
	p.turns <- t
	for _, r := range p.recv {
		go p.receive(r)
	}
	go p.dispatch()
	return p, nil
}

// Done is closed when nothing is received any more and all that was received
// is answered, but for what the disk holds for space.
func (p *Publication) Done() <-chan struct{} { return p.done }

// Err tells why the publication ended by itself: gate.ErrGone when the unit was
// destroyed. It is nil while it serves and after Stop and Abandon. Once it is
// not, nothing is submitted or answered any more.
func (p *Publication) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// ServeAll begins to serve what Config.ReadsOnly kept back, in the order it came.
func (p *Publication) ServeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.activateLocked()
}

func (p *Publication) activateLocked() {
	p.readsOnly.Store(false)
	p.order.activate(&p.ready)
	p.wakeDispatcherLocked()
}

// Stop ends the receivers, waits until what they took is answered, and returns.
// What the disk holds for space, and what ReadsOnly keeps back, is left to
// whoever serves the unit next: from then on nothing is answered. When ctx ends
// first, the error says what is missing, and Stop can be called again.
func (p *Publication) Stop(ctx context.Context) error {
	if err := p.stopReceivers(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	readsOnly := p.order.readsOnly
	p.mu.Unlock()
	if readsOnly {
		p.endAnswers()
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("stop serving unit %d: %d requests are not answered yet: %w", p.unit, p.Stats().Unanswered, ctx.Err())
	}
	p.endAnswers()
	<-p.answering.idle
	return nil
}

// Abandon ends the receivers and answers nothing more, so that another can
// take over at once: whatever is under way is left unanswered. What the disk
// has begun it goes on with; it must be done, or never have an effect, before
// another serves the unit.
func (p *Publication) Abandon(ctx context.Context) error {
	p.endAnswers()
	if err := p.stopReceivers(ctx); err != nil {
		return err
	}
	select {
	case <-p.answering.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("abandon unit %d: the disk is still busy: %w", p.unit, ctx.Err())
	}
}

// endAnswers lets no request be submitted or answered from now on, and what
// waits come to nothing.
func (p *Publication) endAnswers() {
	p.tellStop()
	p.answering.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.activateLocked()
}

// stopReceivers interrupts the START of whoever sleeps in one until all are out.
// A signal that comes just before the thread sleeps is lost, so there are more.
func (p *Publication) stopReceivers(ctx context.Context) error {
	p.tellStop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		for _, r := range p.recv {
			r.Interrupt()
		}
		select {
		case <-p.out:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("stop serving unit %d: a receiver is not back from the kernel or the disk: %w", p.unit, ctx.Err())
		}
	}
}

func (p *Publication) tellStop() { p.stopOnce.Do(func() { close(p.stop) }) }

func (p *Publication) stopping() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// Stats are counts at an instant.
type Stats struct {
	Taken      uint64 // requests taken since Start
	Failed     uint64 // answered with an error
	Unanswered int    // taken, neither answered nor held for space, without one that is served straight
	Waiting    int    // of these, waiting for others or kept back
	Held       int    // held for space
	HeldBytes  int64
}

// Stats counts.
func (p *Publication) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Taken:      p.taken.Load(),
		Failed:     p.failed.Load(),
		Unanswered: int(p.unanswered.Load()),
		Waiting:    p.order.waiting.len,
		Held:       p.held,
		HeldBytes:  p.heldBytes,
	}
}

// checkDoneLocked ends the publication when nobody uses its memory any more.
func (p *Publication) checkDoneLocked() {
	if p.ended || p.receivers > 0 || p.unanswered.Load() > 0 || len(p.pool) < p.slots {
		return
	}
	p.ended = true
	p.freeMemory()
	p.wake.Signal()
	close(p.done)
}
