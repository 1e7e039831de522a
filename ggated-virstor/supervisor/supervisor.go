package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// Options of a Supervisor.
type Options struct {
	Providers []string // that the configuration names, to serve first
	Grown     []string // that volumes have grown by, to serve, too
	// Registry opens providers by their names. Of its schemes those are of use here
	// whose providers are Passable.
	Registry geomlib.Registry
	RunDir   string // of locks and records
	// ReadOnly: nothing is opened for writing, whatever the worker asks for.
	ReadOnly bool
	// Units is nil when there is no geom_gate.
	Units *units.Manager
	// GateName and GateUnit are of the devices to be made, as in gatepub.Publisher: the
	// worker gets no others.
	GateName string
	GateUnit int
	// MaxClients bounds the NBD clients that are kept from one worker to the next.
	MaxClients int
	// Program is the path of the program that is the worker, and that an
	// upgrade executes.
	Program string
	// Args are the worker's.
	Args []string
	// Alert runs the administrator's command; nil: there is none.
	Alert space.Runner
	// Fence keeps a host from the components of a volume; nil: there is no way to.
	Fence func(ctx context.Context, v publish.Fenced) error
	// Grower makes providers for volumes that run out of space, or is nil. What it
	// makes of the worker's words is bounded by its own configuration.
	Grower space.Grower
	// Certificates reads those of the NBD server; nil: there are none.
	Certificates func() (Certificates, error)
	// Archive is where backups are kept; nil: nowhere.
	Archive *backup.Dir
	// Memory is where it is noted what this host serves; nil: nowhere.
	Memory *state.Dir
	// Note is told of requests that changed something.
	Note func(history.Deed)
	// Reload, when not nil, reads the configuration again after SIGHUP.
	Reload func() (Reloaded, error)
	// Ready, when not nil, is called when a worker serves, each one once.
	Ready func()
	// Protect protects a process from the kernel's memory shortage.
	Protect func(pid int) error
	Log     *slog.Logger
	// Line logs a line of the worker's, which it says itself when Line is nil.
	Line func(level slog.Level, line string) error
}

// Reloaded is what a configuration that was read again says to a supervisor.
type Reloaded struct {
	Providers []string
	Alert     space.Runner
	Grower    space.Grower
	// Configuration is what the worker is told.
	Configuration Configuration
}

// Supervisor keeps one worker alive.
type Supervisor struct {
	opt   Options
	res   Resources
	files []*os.File // of the listeners, the control's first
	store *store
	names names
	front *front
	log   *slog.Logger

	alerts atomic.Int32 // commands that run

	clients connections // that a worker left

	remembering sync.Mutex // of one note of what is served

	mu     sync.Mutex // also of opt.Alert and opt.Grower
	served bool       // a worker was ready once
	// config is what was read last, reloadErr why it was not.
	config    *Configuration
	reloadErr error
}

// worker is one process.
type worker struct {
	cmd   *exec.Cmd
	peer  *fdrpc.Peer
	door  *door
	begun time.Time
	// tenure is how the store knows its questions.
	tenure tenure
	// keep: what the worker gives back is kept for the next one.
	keep    atomic.Bool
	ready   atomic.Bool // volumes are served
	stale   atomic.Bool // it is to be told to read the configuration again
	scratch scratch
	gone    chan struct{} // closed when it is dead; then err is set
	err     error
}

const (
	// lockPatience covers the time in which a worker ends whose supervisor
	// died.
	lockPatience = 15 * time.Second
	// stopPatience is how long a worker may take to end before it is killed:
	// it answers what it has, and flushes.
	stopPatience = 60 * time.Second
	// startPatience is that of one that serves nothing yet: it may hang in what it opens.
	startPatience = 1700 * time.Millisecond
	// killPatience is how long a worker that was killed may take to be gone, and what it
	// had asked for to end. The system lets go nobody who waits for a disk that does not
	// answer, or for a file system whose server has the request.
	killPatience = time.Second

	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	// steady is how long a worker must have lived for its death not to count
	// as one of a series.
	steady = 30 * time.Second
)

// New makes a supervisor of what is open. held is what Inherit returned, or nil.
func New(opt Options, res Resources, held *Held) (*Supervisor, error) {
	s := &Supervisor{opt: opt, res: res, log: opt.Log}
	if held != nil {
		s.store, s.served = held.store, true
		s.clients.add(held.clients...)
	} else {
		s.store = newStore(opt.RunDir, lockPatience)
		s.store.registry = opt.Registry
	}
	s.names.configure(opt.Providers)
	s.names.grew(opt.Grown...)
	if held != nil {
		s.names.keep(held.kept)
	}
	if opt.Units != nil {
		s.store.explain = s.holder
		s.names.remembered = s.remembered
	}
	s.front = newFront(opt.Log, s.names.grant, opt.Note)
	for _, l := range append([]net.Listener{res.Control}, res.NBD...) {
		f, ok := l.(interface{ File() (*os.File, error) })
		if !ok {
			return nil, fmt.Errorf("%s: no descriptor to pass on", l.Addr())
		}
		file, err := f.File()
		if err != nil {
			fdrpc.CloseFiles(s.files)
			return nil, fmt.Errorf("%s: %w", l.Addr(), err)
		}
		s.files = append(s.files, file)
	}
	return s, nil
}

// holder says what in the kernel holds a provider.
func (s *Supervisor) holder(name string) string {
	tree, err := s.opt.Units.Tree(context.Background())
	if err != nil {
		return ""
	}
	return units.Holder(tree, name)
}

// Request is what an administrator asks of the supervisor.
type Request int

// The requests.
const (
	// Upgrade replaces worker and supervisor by the program as it is on disk now.
	Upgrade Request = iota + 1
	// Shutdown unmounts what is mounted from our devices, first kindly, then by
	// force, and in the end destroys the devices by force. Run then returns.
	Shutdown
	// Reload reads the configuration again, and sends the worker SIGHUP when it serves.
	Reload
)

// Run keeps a worker alive until ctx ends or a Shutdown is done, or the first
// worker never gets ready. It closes the resources.
func (s *Supervisor) Run(ctx context.Context, requests <-chan Request) error {
	err := s.run(ctx, requests)
	fdrpc.CloseFiles(s.files)
	s.clients.close()
	err = errors.Join(err, s.store.closeAll(), s.res.Control.Close())
	for _, l := range s.res.NBD {
		err = errors.Join(err, l.Close())
	}
	return errors.Join(err, s.res.WorkerGuard.Close(), s.res.Guard.Close())
}

func (s *Supervisor) run(ctx context.Context, requests <-chan Request) error {
	if err := s.front.open(s.files[0]); err != nil {
		return err
	}
	defer s.front.close()
	pause := firstPause
	for {
		w, err := s.start()
		if err != nil {
			return err
		}
		next, err := s.attend(ctx, w, requests)
		if next == end || err != nil {
			return err
		}
		if next == again {
			continue
		}
		s.mu.Lock()
		served := s.served
		s.mu.Unlock()
		if !served {
			return fmt.Errorf("the worker ended: %w", w.err)
		}
		if time.Since(w.begun) > steady {
			pause = firstPause
		}
		s.logDeath(w, pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			s.destroyIdle()
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// logDeath tells of a worker that is gone, and whose successor is started after a pause.
func (s *Supervisor) logDeath(w *worker, pause time.Duration) {
	s.log.Error("the worker died and is started again", "error", w.err, "after", time.Since(w.begun).Round(time.Millisecond), "pause", pause)
}

// step is what follows a worker's end.
type step int

const (
	died  step = iota // start another, after a pause
	again             // start another at once
	end
)

// attend waits until the worker ends, or ends it.
func (s *Supervisor) attend(ctx context.Context, w *worker, requests <-chan Request) (step, error) {
	for {
		select {
		case <-w.gone:
			return died, nil
		case <-ctx.Done():
			s.log.Info("stopping")
			return end, s.stop(w)
		case r := <-requests:
			switch r {
			case Shutdown:
				return end, s.shutdown(w, systemMounts{}, systemLimits)
			case Reload:
				s.reload()
				w.stale.Store(true)
				s.tellReload(w)
			case Upgrade:
				if err := s.upgradable(); err != nil {
					s.log.Error("no upgrade", "error", err)
					continue
				}
				s.log.Info("upgrading", "program", s.opt.Program)
				if err := s.end(w, Leave); err != nil {
					s.log.Error("the worker did not end in order; what it had is taken over", "error", err)
				}
				if !w.isGone() { // the next one would write where it still does
					s.log.Error("no upgrade before a disk or a file system answers", "worker", w.cmd.Process.Pid)
					continue
				}
				s.front.close()
				s.log.Error("no upgrade of the supervisor; a new worker is started", "error", s.replace(s.opt.Program))
				return again, s.front.open(s.files[0])
			}
		}
	}
}

// reload takes on what the configuration says now. The worker is told, also of
// errors, which it logs.
func (s *Supervisor) reload() {
	if s.opt.Reload == nil {
		return
	}
	r, err := s.opt.Reload()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloadErr = err
	if err != nil {
		return
	}
	s.names.configure(r.Providers)
	s.opt.Alert, s.opt.Grower, s.config = r.Alert, r.Grower, &r.Configuration
}

// tellReload tells a worker that serves of a configuration that it has not been told of. One that
// serves nothing yet might not expect the signal, which would end it, and is told later.
func (s *Supervisor) tellReload(w *worker) {
	if !w.ready.Load() || !w.stale.Swap(false) {
		return
	}
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.log.Error("the worker cannot be told to reload", "error", err)
	}
}

// helpers are who acts for the worker on the administrator's behalf.
func (s *Supervisor) helpers() (space.Runner, space.Grower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opt.Alert, s.opt.Grower
}

// upgradable tries the program that is to replace this one, with what it will be started
// with: one that refused that would leave devices without anybody who serves them.
func (s *Supervisor) upgradable() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	args := append([]string{"--check-config"}, s.opt.Args...)
	if out, err := exec.CommandContext(ctx, s.opt.Program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s --check-config: %w: %s", s.opt.Program, err, bytes.TrimSpace(out))
	}
	return nil
}

// start starts a worker.
func (s *Supervisor) start() (*worker, error) {
	conn, theirs, err := fdrpc.SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	hand, handed, err := fdrpc.SocketPair()
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer handed.Close()
	until, kept, err := os.Pipe()
	if err != nil {
		conn.Close()
		hand.Close()
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	defer kept.Close()
	w := &worker{tenure: s.store.newWorker(), begun: time.Now(), gone: make(chan struct{}), door: &door{conn: hand}}
	w.cmd = exec.Command(s.opt.Program, s.opt.Args...)
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = nil, os.Stdout, os.Stderr
	w.cmd.ExtraFiles = []*os.File{theirs, handed, kept} // become workerFD, doorFD and untilFD
	w.cmd.Env = append(os.Environ(), workerEnv+"=1", untilEnv+"=1")
	w.peer = s.peerOf(w, conn)
	if err := w.cmd.Start(); err != nil {
		conn.Close()
		hand.Close()
		until.Close()
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	if err := s.opt.Protect(w.cmd.Process.Pid); err != nil {
		s.log.Warn("the worker is not protected", "error", err)
	}
	s.front.use(w.door)
	received := make(chan error, 1)
	go func() { received <- w.peer.Run() }()
	go func() {
		defer close(w.gone)
		w.err = w.cmd.Wait()
		s.front.use(nil)
		hand.Close()
		s.awaitRawIO(until, w.cmd.Process.Pid)
		w.peer.Close()
		defer w.scratch.replace(nil)
		select {
		case err := <-received:
			w.err = errors.Join(w.err, err)
		case <-time.After(killPatience):
			s.log.Warn("what the worker asked for does not end, and is left", "worker", w.cmd.Process.Pid)
		}
		if w.err == nil {
			w.err = errors.New("it ended by itself")
		}
	}()
	return w, nil
}

// isGone reports whether the worker is dead, and all that it began done.
func (w *worker) isGone() bool {
	select {
	case <-w.gone:
		return true
	default:
		return false
	}
}

// kill kills the worker, which may have ended already.
func (w *worker) kill() error {
	if err := w.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the worker: %w", err)
	}
	return nil
}

// stop ends the worker for good.
func (s *Supervisor) stop(w *worker) error {
	err := s.end(w, Finish)
	if err != nil {
		s.destroyIdle()
	}
	return err
}

// destroyIdle destroys what nobody has open, in place of a worker that did not come to that: a
// device that nobody serves keeps GEOM waiting, and with it whoever asks for any device. What a
// former daemon left stays, unless it was served here.
func (s *Supervisor) destroyIdle() {
	s.mu.Lock()
	served := s.served
	s.mu.Unlock()
	if served && s.opt.Units != nil {
		s.destroyLeft(false, systemLimits.kernel)
	}
}

// awaitRawIO waits for what a dead worker had begun. System calls have ended with it; what
// a ring of it has (geomlib.Rings) keeps the other end of until open.
func (s *Supervisor) awaitRawIO(until *os.File, pid int) {
	late := time.AfterFunc(killPatience, func() {
		s.log.Warn("what the worker had begun is awaited: a disk does not answer", "worker", pid)
	})
	defer late.Stop()
	_, _ = io.Copy(io.Discard, until) // nothing is written, and it ends in any case
	until.Close()
}

// end has the worker end, and kills it if it does not.
func (s *Supervisor) end(w *worker, how Ending) error {
	patience := stopPatience
	if !w.ready.Load() {
		patience = startPatience
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.keep.Store(how == Leave)
	_, err := w.peer.Call(ctx, methodStop, stopArgs{how}, nil)
	if err == nil && how == Leave {
		s.takeClients(ctx, w)
	}
	if err == nil || errors.Is(err, fdrpc.ErrGone) { // it may be gone before it has answered
		select {
		case <-w.gone:
			if code := w.cmd.ProcessState.ExitCode(); code != 0 {
				return fmt.Errorf("the worker ended with %w", w.err)
			}
			return nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	err = errors.Join(fmt.Errorf("end the worker: %w", err), w.kill())
	select {
	case <-w.gone:
	case <-time.After(2 * killPatience):
		s.log.Error("a worker that was killed waits for a disk or a file system, and is left", "worker", w.cmd.Process.Pid)
	}
	return err
}
