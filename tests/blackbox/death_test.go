package blackbox

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

var (
	deathDuration = flag.Duration("death.duration", 0, "how long TestDeathSoak runs; 0 skips it")
	deathSeed     = flag.Uint64("death.seed", 1, "the first seed of the sessions of kills, stops and drops")
	deathSessions = flag.Uint64("death.sessions", 0, "how many sessions TestDeathSoak runs (0: as many as fit)")
	deathSabotage = flag.Int("death.sabotage", 0, "damage the components behind the daemon's back in this `round` of each session, to see it noticed")
)

// deathCounts is what sessions did.
type deathCounts struct {
	sessions, rounds                    atomic.Int64
	workers, daemons, starts            atomic.Int64 // killed; starts: while they started
	upgrades                            atomic.Int64
	stops, drops                        atomic.Int64
	acked, durable, fioRuns, qemuIoRuns atomic.Int64
	verified                            atomic.Int64 // bytes
}

func (c *deathCounts) String() string {
	return fmt.Sprintf("%d sessions of %d rounds: %d workers killed, %d daemons killed, %d more while they started, %d upgrades, %d stops, %d connections dropped; "+
		"%d requests acknowledged, %d of them flushed; %d runs of fio, %d of qemu-io; %d MiB compared",
		c.sessions.Load(), c.rounds.Load(), c.workers.Load(), c.daemons.Load(), c.starts.Load(), c.upgrades.Load(), c.stops.Load(), c.drops.Load(),
		c.acked.Load(), c.durable.Load(), c.fioRuns.Load(), c.qemuIoRuns.Load(), c.verified.Load()>>20)
}

// session is one daemon that is killed, stopped and let down by its clients
// again and again. All that it chooses comes from its seed.
type session struct {
	*site
	seed   uint64
	rng    *rand.Rand
	counts *deathCounts

	supervised, junk bool
	withFio, withIo  bool
	flags            []string

	small, big *lanes
	fioLedger  *ledger
	ioLedger   *ledger
	dropLedger *ledger
	dropped    uint64 // generation of the last dropped connection
}

// physical is more than the ledgers together, lest a write waits for space.
const physical = 176 * mib

func newSession(t *testing.T, seed uint64, counts *deathCounts) *session {
	rng := rand.New(rand.NewPCG(seed, 0x5e5510))
	s := &session{site: newSite(t, physical/2, physical/2), seed: seed, rng: rng, counts: counts,
		supervised: rng.IntN(2) == 0, junk: rng.IntN(3) == 0, withFio: rng.IntN(2) == 0, withIo: rng.IntN(2) == 0}
	if rng.IntN(2) == 0 {
		s.flags = append(s.flags, "--alloc", "spread")
	}
	if s.supervised {
		s.flags = append(s.flags, "--supervise", "--user", "")
	}
	s.small = &lanes{ledger: newLedger("small requests", 0, 64*mib, cells(sectorSize)), count: 8, block: 64 << 10, longest: 32 << 10}
	s.big = &lanes{ledger: newLedger("large requests", 64*mib, 32*mib, cells(sectorSize)), count: 2, block: 4 * mib, longest: 3 * mib}
	s.fioLedger = newLedger("fio", 96*mib, 24*mib, cells(fioBlock))
	s.ioLedger = newLedger("qemu-io", 120*mib, 16*mib, uniform)
	s.dropLedger = newLedger("dropped connections", 136*mib, 16*mib, cells(sectorSize))
	if s.junk {
		s.fillWithJunk()
	}
	s.label("-s", "1g", "-m", []string{"1m", "2m", "4m"}[rng.IntN(3)])
	s.flags = append(s.flags, "--http", "127.0.0.1:0")
	counts.sessions.Add(1)
	return s
}

// fillWithJunk has the components hold what no client may ever see.
func (s *session) fillWithJunk() {
	s.t.Helper()
	b := make([]byte, mib)
	for i := range b {
		b[i] = byte(i*7 + i>>9)
	}
	for _, name := range s.files {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		for off := int64(0); off < physical/2; off += mib {
			if _, err := f.WriteAt(b, off); err != nil {
				s.t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// run is rounds of load, each ended by something bad, and what is there then
// compared with what was acknowledged.
func (s *session) run(rounds int) {
	s.t.Helper()
	s.start(s.flags...)
	for round := range rounds {
		acts := []func(){s.killRound, s.startRound, s.stopRound, s.dropRound}
		if s.supervised {
			acts = append(acts, s.workerRound, s.workerRound, s.upgradeRound)
		}
		acts[s.rng.IntN(len(acts))]()
		if s.t.Failed() {
			return
		}
		if round+1 == *deathSabotage {
			s.sabotage()
		}
		s.verify()
		s.counts.rounds.Add(1)
	}
	s.gvirstor("stop", "-f", "vol")
	s.gvirstor(append([]string{"check"}, s.files...)...)
}

// verify compares everything. No request is under way.
func (s *session) verify() {
	s.t.Helper()
	c := s.dial()
	defer c.Abort()
	for _, l := range []*ledger{s.small.ledger, s.big.ledger, s.fioLedger, s.ioLedger, s.dropLedger} {
		if err := l.verify(c, true); err != nil {
			s.t.Fatalf("%v\n%s", err, s.log)
		}
		s.counts.verified.Add(l.size)
	}
	// Nobody has written here.
	b := make([]byte, mib)
	for _, off := range []int64{200 * mib, gib - mib} {
		if _, err := c.ReadAt(b, off); err != nil {
			s.t.Fatal(err)
		}
		for i := range b {
			if b[i] != 0 {
				s.t.Fatalf("byte %d, which was never written, reads as %#x", off+int64(i), b[i])
			}
		}
	}
}

// load is all clients at once.
type load struct {
	stop   chan struct{} // closed: our own clients end
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

func (l *load) note(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// begin starts the clients. requests is what fio and qemu-io do at most.
func (s *session) begin(requests int) *load {
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &load{stop: make(chan struct{}), cancel: cancel}
	dial := func() (*nbdclient.Conn, error) {
		c, err := nbdclient.Dial(ctx, s.uri(), nbdclient.Options{})
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		return c, nil
	}
	for _, w := range []*lanes{s.small, s.big} {
		seed := s.rng.Uint64()
		l.wg.Go(func() { l.note(w.run(dial, seed, l.stop)) })
	}
	if s.withFio {
		s.counts.fioRuns.Add(1)
		g, seed := s.rng.Uint64(), s.rng.Uint64N(1<<31)
		l.wg.Go(func() { l.note(s.fioLoad(ctx, s.fioLedger, g|1, seed, requests)) })
	}
	if s.withIo {
		s.counts.qemuIoRuns.Add(1)
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), 2))
		l.wg.Go(func() { l.note(s.qemuLoad(ctx, s.ioLedger, rng, requests)) })
	}
	return l
}

// some waits until our own clients had n more requests acknowledged.
func (s *session) some(n uint64) {
	s.t.Helper()
	before := s.small.acked.Load() + s.big.acked.Load()
	s.until("requests are acknowledged", func() bool { return s.small.acked.Load()+s.big.acked.Load() >= before+n })
}

// instant waits for the moment at which something is to happen.
func (s *session) instant() {
	s.t.Helper()
	s.some(uint64(1 + s.rng.IntN(150)))
	time.Sleep(time.Duration(s.rng.IntN(20000)) * time.Microsecond)
}

// dead waits for clients whose daemon died, and complains of what is more than that.
func (s *session) dead(l *load) {
	s.t.Helper()
	l.wg.Wait()
	l.cancel()
	for _, err := range l.errs {
		if errors.Is(err, errMismatch) {
			s.t.Errorf("before the death: %v\n%s", err, s.log)
		}
	}
	s.tallyLoad()
}

// alive ends the clients of a daemon that must have failed nobody.
func (s *session) alive(l *load) {
	s.t.Helper()
	close(l.stop)
	l.wg.Wait()
	l.cancel()
	for _, err := range l.errs {
		s.t.Errorf("a request failed: %v\n%s", err, s.log)
	}
	s.tallyLoad()
}

func (s *session) tallyLoad() {
	for _, w := range []*lanes{s.small, s.big} {
		s.counts.acked.Add(int64(w.acked.Swap(0)))
		s.counts.durable.Add(int64(w.flushed.Swap(0)))
	}
}

// many is more requests than fio and qemu-io get done before the end.
const many = 1 << 20

// killRound kills the daemon, of supervisor and worker both, and starts another.
func (s *session) killRound() {
	s.t.Helper()
	l := s.begin(many)
	s.instant()
	if s.supervised {
		switch worker := s.worker(); s.rng.IntN(3) {
		case 0: // the worker follows its supervisor
		case 1:
			s.signal(syscall.SIGKILL, worker)
			s.counts.workers.Add(1)
		case 2: // at once, without a chance to take notice
			s.signal(syscall.SIGSTOP, s.cmd.Process.Pid)
			s.signal(syscall.SIGKILL, worker)
			s.counts.workers.Add(1)
		}
	}
	s.kill()
	s.counts.daemons.Add(1)
	s.dead(l)
	s.start(s.flags...)
}

// workerRound kills workers under their supervisor.
func (s *session) workerRound() {
	s.t.Helper()
	for range 1 + s.rng.IntN(3) {
		l := s.begin(many)
		s.instant()
		worker := s.worker()
		s.signal(syscall.SIGKILL, worker)
		s.counts.workers.Add(1)
		s.dead(l)
		s.nextWorker(worker)
	}
}

// stopRound stops the daemon and lets it go on, several times.
func (s *session) stopRound() {
	s.t.Helper()
	pids := []int{s.worker()}
	if s.supervised && s.rng.IntN(2) == 0 {
		pids = append(pids, s.cmd.Process.Pid)
	}
	l := s.begin(500)
	for range 1 + s.rng.IntN(6) {
		s.instant()
		s.signal(syscall.SIGSTOP, pids...)
		time.Sleep(time.Duration(s.rng.IntN(60)) * time.Millisecond)
		s.signal(syscall.SIGCONT, pids...)
		s.counts.stops.Add(1)
	}
	s.some(50)
	s.alive(l)
}

func (s *session) signal(sig syscall.Signal, pids ...int) {
	s.t.Helper()
	for _, pid := range pids {
		if pid == 0 {
			s.t.Fatalf("no process to send %s to\n%s", sig, s.log)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			s.t.Fatalf("%s to %d: %v", sig, pid, err)
		}
	}
}

// sabotage changes what a component holds of a sector that was acknowledged, as
// a lost write does.
func (s *session) sabotage() {
	s.t.Helper()
	for _, name := range s.files {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, mib)
		for off := int64(0); off+mib < physical/2; off += mib {
			if _, err := f.ReadAt(b, off); err != nil {
				s.t.Fatal(err)
			}
			for k := 0; k < mib; k += sectorSize {
				address := int64(b[k]) | int64(b[k+1])<<8 | int64(b[k+2])<<16 | int64(b[k+3])<<24
				if g, ok := cells(sectorSize)(b[k:k+sectorSize], address); !ok || g < 2 || address >= 64*mib {
					continue
				}
				i, _ := s.small.ledger.sectors(address, 0)
				if g, _ := cells(sectorSize)(b[k:k+sectorSize], address); s.small.ledger.stable[i] != g {
					continue
				}
				old := make([]byte, sectorSize)
				stampSectors(old, address, 1)
				if _, err := f.WriteAt(old, off+int64(k)); err != nil {
					s.t.Fatal(err)
				}
				return
			}
		}
	}
	s.t.Fatal("there is nothing to damage")
}

// sessionRounds is how often the daemon of one session suffers.
const sessionRounds = 6

// runSession runs the session of a seed, and says how to run it again when it
// finds something.
func runSession(t *testing.T, seed uint64, counts *deathCounts) (ok bool) {
	return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		t.Cleanup(func() {
			if t.Failed() {
				extra := ""
				if *deathSabotage != 0 {
					extra = fmt.Sprintf(" -death.sabotage=%d", *deathSabotage)
				}
				t.Logf("replay: go test ./tests/blackbox -run '^TestDeathSoak$' -count=1 -v -death.seed=%d -death.sessions=1%s", seed, extra)
			}
		})
		newSession(t, seed, counts).run(sessionRounds)
	})
}

func TestADaemonThatDiesStopsAndIsLetDownLosesNothing(t *testing.T) {
	need(t, "fio", "qemu-io")
	var counts deathCounts
	for i := range uint64(3) {
		runSession(t, *deathSeed+i, &counts)
	}
	t.Log(&counts)
}

// TestDeathSoak runs session after session.
func TestDeathSoak(t *testing.T) {
	if *deathDuration == 0 && *deathSessions == 0 {
		t.Skip("-death.duration is not given; `make soak DURATION=10m` gives it")
	}
	need(t, "fio", "qemu-io")
	var counts deathCounts
	violations := 0
	end := time.Now().Add(*deathDuration)
	seed := *deathSeed
	for ; *deathSessions > 0 && seed < *deathSeed+*deathSessions || *deathSessions == 0 && time.Now().Before(end); seed++ {
		if !runSession(t, seed, &counts) {
			violations++
		}
	}
	fmt.Printf("soak: daemon: seeds %d to %d; %s; %d violations\n", *deathSeed, seed-1, &counts, violations)
}

func TestDamageBehindTheDaemonsBackIsNoticed(t *testing.T) {
	var counts deathCounts
	s := newSession(t, 1, &counts)
	s.withFio, s.withIo = false, false
	s.start(s.flags...)
	s.killRound()
	s.verify()
	s.sabotage()
	c := s.dial()
	if err := s.small.ledger.verify(c, false); !errors.Is(err, errMismatch) {
		t.Fatalf("an old sector in the place of a new one: %v", err)
	}
}
