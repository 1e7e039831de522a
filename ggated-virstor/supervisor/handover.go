package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
)

// stateEnv names the descriptor of what a supervisor left to the program that
// replaced it in its process.
const stateEnv = "GGATED_VIRSTOR_STATE"

// handover is that: descriptors, and what they are.
type handover struct {
	Control   int              `json:"control"`
	NBD       []int            `json:"nbd"`
	Gate      int              `json:"gate"`   // or -1
	Guards    [2]int           `json:"guards"` // the supervisor's, the worker's
	Providers []handedProvider `json:"providers"`
	Locks     map[uint32]int   `json:"locks"`
	Kept      []string         `json:"kept,omitempty"` // spares that requests named
	Clients   []handedClient   `json:"clients,omitempty"`
}

type handedProvider struct {
	FD         int      `json:"fd"`
	Name       string   `json:"name"`
	Aliases    []string `json:"aliases"`
	ReadOnly   bool     `json:"read_only"`
	SectorSize int      `json:"sector_size"`
	State      []byte   `json:"state,omitempty"` // of the provider, beside its descriptor
	// FlushFailed goes along with the descriptor until the provider is closed.
	FlushFailed bool `json:"flush_failed,omitempty"`
}

// handedClient is an NBD client that no worker has.
type handedClient struct {
	FD      int             `json:"fd"`
	Session json.RawMessage `json:"session"`
}

// Resources are what a supervisor opens before it starts a worker.
type Resources struct {
	Control net.Listener
	NBD     []net.Listener
	Gate    *os.File // /dev/ggctl, or nil
	// Guard is the supervisor's. WorkerGuard is passed on, so that nobody
	// has it while a worker lives.
	Guard, WorkerGuard *Guard
}

// inherited is what the program before left in this process.
func inherited() (*handover, error) {
	v := os.Getenv(stateEnv)
	if v == "" {
		return nil, nil
	}
	if err := os.Unsetenv(stateEnv); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", stateEnv, v, err)
	}
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	var h handover
	if err := json.NewDecoder(f).Decode(&h); err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	return &h, nil
}

// Inherit returns the resources, and what is open, of the program that was
// replaced by this one in the same process; nil when there was none. The registry
// makes providers of the descriptors.
func Inherit(lockDir string, registry geomlib.Registry) (*Resources, *Held, error) {
	h, err := inherited()
	if h == nil || err != nil {
		return nil, nil, err
	}
	var r Resources
	if r.Control, err = listenerOf(h.Control); err != nil {
		return nil, nil, err
	}
	for _, fd := range h.NBD {
		l, err := listenerOf(fd)
		if err != nil {
			return nil, nil, err
		}
		r.NBD = append(r.NBD, l)
	}
	if h.Gate >= 0 {
		r.Gate = fileOf(h.Gate, "/dev/ggctl")
	}
	r.Guard, r.WorkerGuard = &Guard{fileOf(h.Guards[0], "guard")}, &Guard{fileOf(h.Guards[1], "guard")}
	s := newStore(lockDir, lockPatience)
	s.registry = registry
	for _, p := range h.Providers {
		o := geomlib.OpenOptions{ReadOnly: p.ReadOnly, SectorSize: p.SectorSize}
		f := fileOf(p.FD, p.Name)
		prov, err := registry.Adopt(f, p.Name, p.State, o)
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		s.providers[prov.Name()] = &heldProvider{p: prov, f: f, state: p.State, aliases: p.Aliases, opts: o, flushFailed: p.FlushFailed}
	}
	for id, fd := range h.Locks {
		s.locks[id] = &heldLock{l: geomlib.VolumeLockFromFile(fileOf(fd, "lock"))}
	}
	held := &Held{store: s, kept: h.Kept}
	for _, c := range h.Clients {
		held.clients = append(held.clients, Connection{fileOf(c.FD, "client"), c.Session})
	}
	return &r, held, nil
}

// Held is what was open in the program before.
type Held struct {
	store   *store
	kept    []string
	clients []Connection
}

func fileOf(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

func listenerOf(fd int) (net.Listener, error) {
	f := fileOf(fd, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over a listener: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true)
	}
	return l, nil
}

// replace replaces the program in this process. It returns only when it cannot.
func (s *Supervisor) replace(path string) error {
	h := handover{Gate: -1, Guards: [2]int{int(s.res.Guard.f.Fd()), int(s.res.WorkerGuard.f.Fd())},
		Control: int(s.files[0].Fd()), Locks: make(map[uint32]int), Kept: s.names.keptNames()}
	keep := append(h.Guards[:], h.Control)
	for _, f := range s.files[1:] {
		h.NBD = append(h.NBD, int(f.Fd()))
	}
	keep = append(keep, h.NBD...)
	if s.res.Gate != nil {
		h.Gate = int(s.res.Gate.Fd())
		keep = append(keep, h.Gate)
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for name, p := range s.store.providers {
		fd := int(p.f.Fd())
		h.Providers = append(h.Providers, handedProvider{FD: fd, Name: name, Aliases: p.aliases,
			ReadOnly: p.opts.ReadOnly, SectorSize: p.p.SectorSize(), State: p.state, FlushFailed: p.flushFailed})
		keep = append(keep, fd)
	}
	for id, l := range s.store.locks {
		h.Locks[id] = int(l.l.File().Fd())
		keep = append(keep, h.Locks[id])
	}
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	for _, c := range s.clients.all {
		fd := int(c.Socket.Fd())
		h.Clients = append(h.Clients, handedClient{fd, c.Session})
		keep = append(keep, fd)
	}
	state, err := os.CreateTemp(s.opt.RunDir, "state")
	if err != nil {
		return fmt.Errorf("note what is open: %w", err)
	}
	defer state.Close()
	if err := errors.Join(os.Remove(state.Name()), json.NewEncoder(state).Encode(h)); err != nil {
		return fmt.Errorf("note what is open: %w", err)
	}
	keep = append(keep, int(state.Fd()))
	// Nobody else may inherit them meanwhile.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	for _, fd := range keep {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep a descriptor: %w", err)
		}
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d", stateEnv, state.Fd()))
	err = unix.Exec(path, os.Args, env)
	for _, fd := range keep {
		unix.CloseOnExec(fd)
	}
	return fmt.Errorf("exec %s: %w", path, err)
}
