package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a supervisor without a process, and its worker's end.
type pair struct {
	s *Supervisor
	w *worker
	c *Client
	k *gatetest.Kernel
	g *gate.Gate
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{k: gatetest.New(gatetest.Options{})}
	t.Cleanup(p.k.Close)
	t.Cleanup(func() { must(t, p.k.Panicked()) })
	p.g = p.k.Open()
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	waits := units.Waits{Trust: time.Second, Guess: time.Second, Confirm: time.Second}
	p.s = &Supervisor{log: log, store: newStore(dir, 0),
		opt: Options{RunDir: dir, Log: log, GateUnit: gate.UnitAuto, Units: units.New(p.g, geomlib.NewTreeReader(p.k.Confxml), dir, waits, log)}}
	p.s.store.explain, p.s.names.remembered = p.s.holder, p.s.remembered
	p.connect(t)
	return p
}

// configure has the configuration name these.
func (p *pair) configure(all ...string) { p.s.names.configure(all) }

// lock has the worker serve a volume.
func (p *pair) lock(t *testing.T, id uint32) {
	t.Helper()
	_, err := p.c.LockVolume(id)
	must(t, err)
}

// connect begins a worker.
func (p *pair) connect(t *testing.T) {
	t.Helper()
	ours, theirs, err := fdrpc.SocketPair()
	must(t, err)
	conn, err := fdrpc.ConnOf(theirs)
	must(t, err)
	w := &worker{tenure: p.s.store.newWorker()}
	w.peer = p.s.peerOf(w, ours)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.peer.Run() // ends when the test closes it
	}()
	p.w, p.c = w, newClient(conn)
	c := p.c
	t.Cleanup(func() {
		c.Close()
		<-done
	})
}

// startProcesses has start start processes that answer nothing, and that a signal ends.
func (p *pair) startProcesses(t *testing.T) {
	t.Helper()
	// Where this process ignores a hangup, as under nohup(1), they would, too.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangups) })
	p.s.opt.Program, p.s.opt.Args = "sleep", []string{"1000"}
	p.s.opt.Protect = func(int) error { return nil }
	p.s.front = newFront(p.s.log, p.s.names.grant, nil)
}

func file(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 1<<20))
	return path
}

func TestAProviderPassedOnIsTheSameOpenFile(t *testing.T) {
	p := newPair(t)
	path := file(t, "a")
	p.configure(path)
	prov, err := p.c.Open(path, false, 0)
	must(t, err)
	_, err = prov.WriteAt(make([]byte, 512), 512)
	must(t, err)
	if _, err := geomlib.Open(path, geomlib.OpenOptions{}); !errors.Is(err, geomlib.ErrLocked) {
		t.Fatalf("not locked: %v", err)
	}
	// The worker dies without a word; the next is given the same.
	p.c.Close()
	p.connect(t)
	if got := p.s.store.names(); !slices.Equal(got, []string{path}) {
		t.Fatalf("held: %v", got)
	}
	again, err := p.c.Open(path, false, 0)
	must(t, err)
	must(t, p.s.store.tidy(p.w.tenure))
	if _, err := geomlib.Open(path, geomlib.OpenOptions{}); !errors.Is(err, geomlib.ErrLocked) {
		t.Fatalf("the lock was lost: %v", err)
	}
	must(t, again.Close())
	if _, err := geomlib.Open(path, geomlib.OpenOptions{}); err == nil {
		t.Fatal("the dead worker's own descriptor should have the lock still")
	}
	must(t, prov.(io.Closer).Close()) // as its exit would
	other, err := geomlib.Open(path, geomlib.OpenOptions{})
	must(t, err)
	must(t, other.Close())
}

func TestWhatTheNextWorkerDoesNotOpenIsClosed(t *testing.T) {
	p := newPair(t)
	a, b := file(t, "a"), file(t, "b")
	p.configure(a, b)
	for _, path := range []string{a, b} {
		_, err := p.c.Open(path, false, 0)
		must(t, err)
	}
	_, err := p.c.LockVolume(7)
	must(t, err)
	p.connect(t)
	_, err = p.c.Open(b, false, 0)
	must(t, err)
	must(t, p.c.Ready(context.Background()))
	if got := p.s.store.names(); !slices.Equal(got, []string{b}) {
		t.Fatalf("held: %v", got)
	}
	if len(p.s.store.locks) != 0 {
		t.Fatal("the lock is held for nobody")
	}
}

func TestPeekingTakesNoLock(t *testing.T) {
	p := newPair(t)
	path := file(t, "a")
	p.configure(path)
	peeked, err := p.c.Peek(path, 0)
	must(t, err)
	other, err := geomlib.Open(path, geomlib.OpenOptions{})
	must(t, err)
	must(t, other.Close())
	if _, err := peeked.WriteAt(make([]byte, 512), 0); err == nil {
		t.Fatal("wrote")
	}
	must(t, peeked.Close())
	if len(p.s.store.names()) != 0 {
		t.Fatal("the supervisor holds what was only peeked at")
	}
}

// A worker serves reads from what it has peeked at, says that it is ready, and comes to
// open the same for writing at its leisure.
func TestWhatTheNextWorkerHasOnlyPeekedAtStaysHeld(t *testing.T) {
	p := newPair(t)
	path := file(t, "a")
	p.configure(path)
	dead, err := p.c.Open(path, false, 0)
	must(t, err)
	p.c.Close()
	must(t, dead.Close())
	p.connect(t)
	peeked, err := p.c.Peek(path, 0)
	must(t, err)
	must(t, p.c.Ready(context.Background()))
	writable, err := p.c.Open(path, false, 0)
	must(t, err)
	_, err = writable.WriteAt(make([]byte, 512), 0)
	must(t, err)
	must(t, writable.Close())
	if got := p.s.store.names(); !slices.Equal(got, []string{path}) {
		t.Fatalf("held, while it is peeked at: %v", got)
	}
	must(t, peeked.Close())
	other, err := geomlib.Open(path, geomlib.OpenOptions{})
	must(t, err)
	must(t, other.Close())
}

func TestNothingOfTheWorkerBeforeIsClosedUntilTheNextIsReady(t *testing.T) {
	p := newPair(t)
	path := file(t, "a")
	p.configure(path)
	for range 2 {
		_, err := p.c.Open(path, false, 0)
		must(t, err)
		p.lock(t, 7)
		p.c.Close()
		p.connect(t)
		held := p.s.store.providers[path]
		for range 2 { // it looks at what there is, and takes it then
			again, err := p.c.Open(path, false, 0)
			must(t, err)
			lock, err := p.c.LockVolume(7)
			must(t, err)
			must(t, errors.Join(again.Close(), lock.Close()))
		}
		if p.s.store.providers[path] != held || p.s.store.locks[7] == nil {
			t.Fatal("closed in between")
		}
	}
	must(t, p.c.Ready(context.Background()))
	if len(p.s.store.providers) != 0 || len(p.s.store.locks) != 0 {
		t.Fatal("held for nobody")
	}
}

func TestADeadWorkersLateQuestionsChangeNothing(t *testing.T) {
	p := newPair(t)
	path, other := file(t, "a"), file(t, "b")
	p.configure(path, other)
	_, err := p.c.Open(path, false, 0)
	must(t, err)
	p.lock(t, 7)
	before := p.w.tenure
	p.c.Close()
	p.connect(t)
	_, err = p.c.Open(path, false, 0)
	must(t, err)
	p.lock(t, 7)
	must(t, p.c.Ready(context.Background()))

	must(t, p.s.store.close(before, path))
	must(t, p.s.store.unlock(before, 7))
	must(t, p.s.store.tidy(before))
	if _, f := p.s.store.reopen(before, openArgs{Name: path}); f != nil {
		t.Error("it is counted as the next worker's")
	}
	if _, _, err := p.s.store.open(t.Context(), before, openArgs{Name: other}); !errors.Is(err, errTenure) {
		t.Error(err)
	}
	if _, err := p.s.store.lock(t.Context(), before, 8); !errors.Is(err, errTenure) {
		t.Error(err)
	}
	if got := p.s.store.names(); !slices.Equal(got, []string{path}) || len(p.s.store.locks) != 1 {
		t.Errorf("held: %v, %d locks", got, len(p.s.store.locks))
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	p := newPair(t)
	path := file(t, "a")
	p.configure(path, "x", "y")
	held, err := geomlib.Open(path, geomlib.OpenOptions{})
	must(t, err)
	defer held.Close()
	if _, err := p.c.Open(path, false, 0); !errors.Is(err, geomlib.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
	ctx := context.Background()
	p.lock(t, 1)
	u, err := p.c.Acquire(ctx, units.Spec{Key: units.Key{ID: 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
	must(t, err)
	must(t, p.c.Confirm(ctx, units.Key{ID: 1}, u))
	if err := p.c.Confirm(ctx, units.Key{ID: 2}, u); !errors.Is(err, units.ErrNotOurs) {
		t.Fatal(err)
	}
	dev, err := p.k.OpenDev(u.Name, gatetest.Reader|gatetest.Writer)
	must(t, err)
	if m, err := p.c.Mode(ctx, u.Number); err != nil || m.Write != 1 {
		t.Fatal(m, err)
	}
	if err := p.c.Release(units.Key{ID: 1}, u.Number, false); !errors.Is(err, gate.ErrBusy) {
		t.Fatal(err)
	}
	must(t, p.c.Resize(u.Number, 2<<20))
	must(t, p.c.RecordProviders(1, []string{"x", "y"}))
	left, err := p.c.Leftovers()
	must(t, err)
	if !slices.Equal(left[1], []string{"x", "y"}) {
		t.Fatal(left)
	}
	must(t, dev.Close())
	must(t, p.c.Release(units.Key{ID: 1}, u.Number, false))
	if _, err := p.c.Mode(ctx, u.Number); !errors.Is(err, gate.ErrGone) {
		t.Fatal(err)
	}
}

func TestAQuestionEndsWhenTheOtherSideDies(t *testing.T) {
	ours, theirs, err := fdrpc.SocketPair()
	must(t, err)
	conn, err := fdrpc.ConnOf(theirs)
	must(t, err)
	asked := make(chan struct{})
	s := fdrpc.New(ours, fdrpc.Config{Methods: fdrpc.Methods{methodReady: fdrpc.Bare(func(ctx context.Context) (fdrpc.Reply, error) {
		close(asked)
		<-ctx.Done()
		return fdrpc.Reply{}, ctx.Err()
	})}})
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	c := newClient(conn)
	result := make(chan error, 1)
	go func() { result <- c.Ready(context.Background()) }()
	<-asked
	s.Close()
	must(t, <-done)
	if err := <-result; !errors.Is(err, fdrpc.ErrGone) {
		t.Fatal(err)
	}
	if e := <-c.Stop(); e != Leave {
		t.Fatalf("the worker would %s when its supervisor is dead", e)
	}
	if err := c.Ready(context.Background()); !errors.Is(err, fdrpc.ErrGone) {
		t.Fatal(err)
	}
}

func TestAGuardIsTakenFromAnOwnerThatWillNotRunAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guard")
	first, err := LockGuard(t.Context(), path, 0, slog.New(slog.DiscardHandler))
	must(t, err)
	if _, err := LockGuard(t.Context(), path, 0, slog.New(slog.DiscardHandler)); !errors.Is(err, geomlib.ErrLocked) {
		t.Fatal(err)
	}
	second, err := lockGuard(t.Context(), path, 0, slog.New(slog.DiscardHandler), func(pid int) bool { return pid == os.Getpid() })
	must(t, err)
	if _, err := LockGuard(t.Context(), path, 0, slog.New(slog.DiscardHandler)); !errors.Is(err, geomlib.ErrLocked) {
		t.Fatal("the lock that was taken protects nothing")
	}
	must(t, first.Close())
	must(t, second.Close())
	third, err := LockGuard(t.Context(), path, 0, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, third.Close())
}

func TestAVolumesLockIsTakenFromAnOwnerThatWillNotRunAgain(t *testing.T) {
	dir := t.TempDir()
	old, err := geomlib.LockVolume(dir, 7)
	must(t, err)
	defer old.Close()
	s := newStore(dir, 0)
	if _, err := s.tryLock(0, 7); !errors.Is(err, geomlib.ErrLocked) {
		t.Fatal(err)
	}
	s.ending = func(pid int) bool { return pid == os.Getpid() }
	_, err = s.tryLock(0, 7)
	must(t, err)
	must(t, s.closeAll())
}

// fakeMounts are file systems, of which some are busy.
type fakeMounts struct {
	k     *gatetest.Kernel
	busy  map[string]bool          // cannot be unmounted but by force
	dead  map[string]bool          // nor by force
	stuck map[string]chan struct{} // unmounting does not return

	mu    sync.Mutex
	devs  map[string]*gatetest.Dev // by path; the device is named as the path is
	calls map[string]int
}

func (m *fakeMounts) on(devices []string) (paths []string, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.devs {
		if slices.Contains(devices, p) {
			paths = append(paths, p)
		}
	}
	return paths, nil
}

func (m *fakeMounts) unmount(path string, force bool) error {
	m.mu.Lock()
	m.calls[path]++
	m.mu.Unlock()
	if stuck := m.stuck[path]; stuck != nil {
		<-stuck
	}
	if m.dead[path] || m.busy[path] && !force {
		return gate.EBUSY
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devs[path]
	delete(m.devs, path)
	return d.Close()
}

// patience is how long a test waits for what happens at once.
const patience = 30 * time.Second

func TestAShutdownUnmountsKindlyThenByForceThenDestroys(t *testing.T) {
	p := newPair(t)
	stuck := make(chan struct{})
	defer close(stuck)
	m := &fakeMounts{k: p.k, devs: make(map[string]*gatetest.Dev), calls: make(map[string]int),
		busy: map[string]bool{"ggate1": true}, dead: map[string]bool{"ggate2": true}, stuck: map[string]chan struct{}{"ggate3": stuck}}
	for id := range uint32(5) {
		p.lock(t, id+1)
		u, err := p.c.Acquire(context.Background(), units.Spec{Key: units.Key{ID: id + 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
		must(t, err)
		if id < 4 {
			m.devs[u.Name], err = p.k.OpenDev(u.Name, gatetest.Reader|gatetest.Writer)
			must(t, err)
		}
	}
	lastRooms := 0
	lastRoom := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.calls["ggate3"] == 0 {
			t.Error("the reserve is released before anything is unmounted")
		}
		lastRooms++
	}
	c := clearing{mounts: m, check: func() {}, lastRoom: lastRoom, kill: func() { t.Error("a worker that serves is killed") }}
	err := p.s.clear(c, limits{unmount: 50 * time.Millisecond, destroy: 3 * time.Second, kernel: patience})
	if lastRooms == 0 {
		t.Error("the reserve is not released")
	}
	for _, want := range []string{"unmount ggate2: the device is open", "unmount ggate3: it does not end"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if left, err := p.c.Leftovers(); err != nil || len(left) != 0 {
		t.Fatalf("%v left, %v", left, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.devs) != 2 || m.calls["ggate3"] != 1 || m.calls["ggate2"] < 2 {
		t.Fatalf("still mounted: %v; unmounted %v times", m.devs, m.calls)
	}
}

// TestAShutdownKillsAWorkerThatStandsStill within a request, which keeps its device; and leaves
// to the kernel what it does not destroy then either, whatever the other devices are.
func TestAShutdownKillsAWorkerThatStandsStill(t *testing.T) {
	// What the kernel has for the device that is kept: the other one is to be destroyed within
	// that, on a machine that does other things.
	const short = 2 * time.Second
	for _, dies := range []bool{true, false} {
		p := newPair(t)
		var numbers []int
		for id := range uint32(2) {
			p.lock(t, id+1)
			u, err := p.c.Acquire(context.Background(), units.Spec{Key: units.Key{ID: id + 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
			must(t, err)
			numbers = append(numbers, u.Number)
		}
		leave := p.k.Within(numbers[0])
		kills := 0
		c := clearing{mounts: &fakeMounts{k: p.k}, check: func() {}, lastRoom: func() {}, kill: func() {
			if kills++; dies {
				leave()
			}
		}}
		err := p.s.clear(c, limits{unmount: patience, destroy: patience, kernel: short})
		if dies != (err == nil) || !dies && !errors.Is(err, errStays) || kills != 1 {
			t.Errorf("the worker dies: %v; killed %d times, %v", dies, kills, err)
		}
		if !dies {
			leave()
		}
		gone := func() bool { left, err := p.s.opt.Units.Units(); return err == nil && len(left) == 0 }
		for end := time.Now().Add(patience); !gone() && time.Now().Before(end); {
			runtime.Gosched()
		}
		if !gone() {
			t.Error("a device is left")
		}
	}
}

// TestAShutdownHasAnotherWorkerServe in place of one that died, or that answers nothing, so that
// what waits for it is unmounted in good order.
func TestAShutdownHasAnotherWorkerServe(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		p := newPair(t)
		p.startProcesses(t)
		p.lock(t, 1)
		u, err := p.c.Acquire(context.Background(), units.Spec{Key: units.Key{ID: 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
		must(t, err)
		d, err := p.k.OpenDev(u.Name, gatetest.Reader|gatetest.Writer)
		must(t, err)
		served := make(chan struct{})
		m := &fakeMounts{k: p.k, devs: map[string]*gatetest.Dev{u.Name: d}, calls: make(map[string]int), stuck: map[string]chan struct{}{u.Name: served}}
		first, err := p.s.start()
		must(t, err)
		first.ready.Store(true)
		protect := 0
		p.s.opt.Protect = func(pid int) error { // the next one is there
			if protect++; protect == 1 {
				close(served)
			}
			return nil
		}
		limit := limits{unmount: patience, destroy: patience, answer: 50 * time.Millisecond, kernel: patience}
		if stopped {
			limit.unmount = 40 * time.Millisecond // of which a quarter is until it is asked
		} else {
			must(t, first.kill())
		}
		begun := time.Now()
		_ = p.s.shutdown(first, m, limit) // the next one does not answer either, and is killed
		if took := time.Since(begun); len(m.devs) > 0 || m.calls[u.Name] != 1 || protect != 1 || took > patience {
			t.Errorf("stopped %v: mounted are %v, unmounted %d times, %d workers, in %v", stopped, m.devs, m.calls[u.Name], protect, took)
		}
		if left, err := p.s.opt.Units.Units(); err != nil || len(left) > 0 {
			t.Errorf("stopped %v: there are %v, %v", stopped, left, err)
		}
	}
}

// TestWhatAWorkerDoesNotDestroyTheSupervisorDoes: at a stop what nobody has open, and at a shutdown
// all.
func TestWhatAWorkerDoesNotDestroyTheSupervisorDoes(t *testing.T) {
	p := newPair(t)
	p.startProcesses(t)
	var open units.Unit
	for id := range uint32(2) {
		p.lock(t, id+1)
		var err error
		open, err = p.c.Acquire(context.Background(), units.Spec{Key: units.Key{ID: id + 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
		must(t, err)
	}
	d, err := p.k.OpenDev(open.Name, gatetest.Reader|gatetest.Writer)
	must(t, err)
	left := func() (names []string) {
		all, err := p.s.opt.Units.Units()
		must(t, err)
		for _, u := range all {
			names = append(names, u.Name)
		}
		return names
	}
	for _, served := range []bool{false, true} { // what a former daemon left is not this one's to destroy
		w, err := p.s.start()
		must(t, err)
		p.s.served = served
		if p.s.stop(w) == nil {
			t.Error("a worker that was killed ended in order")
		}
		if got := left(); served != slices.Equal(got, []string{open.Name}) {
			t.Errorf("served %v: there are %v", served, got)
		}
	}
	p.s.destroyLeft(true, patience)
	if got := left(); len(got) > 0 {
		t.Errorf("there are %v", got)
	}
	_ = d.Close() // the device is gone
}

func TestAWorkerThatCannotBeStartedAtAShutdownIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Supervisor{log: slog.New(slog.DiscardHandler)}
		gone := make(chan struct{})
		close(gone)
		var serving atomic.Pointer[worker]
		serving.Store(&worker{gone: gone})
		next := &worker{gone: make(chan struct{})}
		over := make(chan struct{})
		var at []time.Duration
		begun := time.Now()
		s.succession(&serving, func() (*worker, error) {
			at = append(at, time.Since(begun))
			if len(at) < 3 {
				return nil, errors.New("no memory")
			}
			close(over)
			return next, nil
		}, over)
		if want := []time.Duration{firstPause, 3 * firstPause, 7 * firstPause}; !slices.Equal(at, want) || serving.Load() != next {
			t.Errorf("started after %v, want %v", at, want)
		}
	})
}

// TestAReloadDoesNotEndAWorkerThatStarts: it is told when it serves, once.
func TestAReloadDoesNotEndAWorkerThatStarts(t *testing.T) {
	p := newPair(t)
	p.startProcesses(t)
	w, err := p.s.start()
	must(t, err)
	requests := make(chan Request)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan step)
	go func() {
		next, _ := p.s.attend(ctx, w, requests)
		over <- next
	}()
	for range 2 {
		requests <- Reload
	}
	stop()
	if next := <-over; next != end || !strings.Contains(w.err.Error(), "killed") {
		t.Errorf("the worker that starts ended of a reload: %v", w.err)
	}

	w, err = p.s.start()
	must(t, err)
	go func() {
		next, _ := p.s.attend(t.Context(), w, requests)
		over <- next
	}()
	for range 2 {
		requests <- Reload
	}
	_, err = p.s.ready(w)
	must(t, err)
	if next := <-over; next != died || !strings.Contains(w.err.Error(), "hangup") {
		t.Errorf("a worker that serves is not told: %v", w.err)
	}
}

func TestAWorkerIsToldOfItsVolumesLastRoomOnce(t *testing.T) {
	p := newPair(t)
	select {
	case <-p.c.LastRoom():
		t.Fatal("told before")
	default:
	}
	for range 2 {
		p.s.giveLastRoom(p.w, patience)
	}
	<-p.c.LastRoom()
	if !alive(p.w, patience) {
		t.Error("it answers, and is not believed")
	}
}

func TestAnUnmountThatIsTriedAgainStillSaysWhyItFailed(t *testing.T) {
	never := make(chan struct{})
	m := &fakeMounts{dead: map[string]bool{"a": true, "b": true}, stuck: map[string]chan struct{}{"b": never}, calls: make(map[string]int)}
	u := &unmounter{mounts: m, running: make(map[string]time.Time), failed: make(map[string]error), results: make(chan unmounted), over: make(chan struct{})}
	defer close(never)
	defer close(u.over)
	u.begin("b", false)
	u.begin("a", false)
	u.note(<-u.results, slog.New(slog.DiscardHandler))
	u.begin("a", true) // and the time is over
	err := u.err()
	if err == nil || err.Error() != "unmount b: it does not end\nunmount a: the device is open" {
		t.Errorf("%v", err)
	}
	u.note(unmounted{path: "a"}, slog.New(slog.DiscardHandler))
	if err := u.err(); err == nil || err.Error() != "unmount b: it does not end" {
		t.Errorf("after it was unmounted: %v", err)
	}
}

func TestAReplacementThatFailsLosesNothing(t *testing.T) {

	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	must(t, err)
	guards := make([]*Guard, 2)
	for i := range guards {
		guards[i], err = LockGuard(context.Background(), filepath.Join(dir, fmt.Sprint("guard", i)), 0, slog.New(slog.DiscardHandler))
		must(t, err)
	}
	s, err := New(Options{RunDir: dir, Note: func(history.Deed) {}, Log: slog.New(slog.DiscardHandler)},
		Resources{Control: l, Guard: guards[0], WorkerGuard: guards[1]}, nil)
	must(t, err)
	path := file(t, "a")
	_, _, err = s.store.open(t.Context(), 0, openArgs{Name: path})
	must(t, err)
	_, err = s.store.tryLock(0, 7)
	must(t, err)
	if err := s.replace(filepath.Join(dir, "no such program")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	// It goes on with what it had.
	if got := s.store.names(); !slices.Equal(got, []string{path}) {
		t.Fatal(got)
	}
	must(t, s.store.closeAll())
	other, err := geomlib.Open(path, geomlib.OpenOptions{})
	must(t, err)
	must(t, other.Close())
	fdrpc.CloseFiles(s.files)
	must(t, l.Close())
}

// onceBusy opens files, and says once that another has them.
type onceBusy struct {
	geomlib.Files
	asked int
}

func (o *onceBusy) Open(name string, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	if o.asked++; o.asked == 1 {
		return nil, geomlib.ErrLocked
	}
	return o.Files.Open(name, opt)
}

func TestAProviderWhoseLockIsAboutToGoIsOpened(t *testing.T) {
	p := newPair(t)
	busy := &onceBusy{}
	p.s.store.registry = geomlib.Registry{"": busy}
	path := file(t, "a")
	p.configure(path)
	prov, err := p.c.Open(path, false, 0)
	if err != nil || busy.asked != 2 {
		t.Fatalf("asked %d times: %v", busy.asked, err)
	}
	must(t, prov.Close())
}

func TestAFlushThatFailedIsKnownToTheNextWorkerUntilTheProviderIsClosed(t *testing.T) {
	failed := func(p geomlib.Provider) bool { return p.(geomlib.FlushHistory).FlushFailed() }
	p := newPair(t)
	path := file(t, "a")
	p.configure(path)
	prov, err := p.c.Open(path, false, 0)
	must(t, err)
	must(t, prov.Flush())
	f, _, _ := geomlib.DescriptorOf(prov)
	must(t, f.Close()) // its flushes fail from now on
	if prov.Flush() == nil {
		t.Fatal("a closed file was flushed")
	}
	p.connect(t)
	again, err := p.c.Open(path, false, 0)
	must(t, err)
	peeked, err := p.c.Peek(path, 0)
	must(t, err)
	if !failed(again) || !failed(peeked) {
		t.Error("the next worker does not know")
	}
	must(t, p.c.Ready(context.Background()))
	must(t, peeked.Close())
	must(t, again.Close())
	fresh, err := p.c.Open(path, false, 0)
	must(t, err)
	if failed(fresh) {
		t.Error("known after the provider was closed")
	}
	must(t, fresh.Close())
}
