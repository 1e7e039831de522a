package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// store is what the supervisor holds open for its workers.
type store struct {
	lockDir  string
	registry geomlib.Registry
	// explain says more about a provider that another holds, or nothing.
	explain func(name string) string
	// patience is how long a lock of a volume may be held by a worker that is
	// about to leave, because its supervisor died.
	patience time.Duration
	// ending reports that a process will never run again.
	ending func(pid int) bool

	mu        sync.Mutex
	providers map[string]*heldProvider // by the provider's own name
	locks     map[uint32]*heldLock
	now       tenure
}

// tenure is one worker's time with what is held. Questions of a dead worker may end after
// the next has begun, and must not give back what is that one's.
type tenure uint64

// errTenure: whoever asked is dead, and another worker may ask for the same.
var errTenure = errors.New("another worker has begun")

type heldProvider struct {
	p       geomlib.Provider
	f       *os.File
	state   []byte   // that goes along with f
	aliases []string // under which it was asked for
	opts    geomlib.OpenOptions
	users   int // opens of the present worker, and its peeks at what is held
	// kept: the worker before had it open, and the present one is not ready. It is not
	// closed, whatever that gives back: it may open it again.
	kept bool
	// flushFailed: what was written through f may be lost, though the system will
	// not say so again. It holds for every worker until the provider is closed.
	flushFailed bool
}

// answer is what a worker is told beside the descriptor.
func (h *heldProvider) answer() openAnswer {
	return openAnswer{Name: h.p.Name(), State: h.state, FlushFailed: h.flushFailed, Held: true}
}

type heldLock struct {
	l     *geomlib.VolumeLock
	users int
	kept  bool // as a provider's
}

func newStore(lockDir string, patience time.Duration) *store {
	return &store{lockDir: lockDir, patience: patience, ending: ending, explain: func(string) string { return "" },
		providers: make(map[string]*heldProvider), locks: make(map[uint32]*heldLock)}
}

// findLocked looks for an open provider by any of its names; s.mu is held.
func (s *store) findLocked(name string) *heldProvider {
	for own, h := range s.providers {
		if geomlib.Name(own).Same(name) || slices.Contains(h.aliases, name) {
			return h
		}
	}
	return nil
}

// reopen returns the descriptor that is held, nil if there is none that will do. A peek at
// it counts, too: a worker that takes a volume over opens for writing what it has peeked at,
// and may get to that only after tidy.
func (s *store) reopen(t tenure, a openArgs) (openAnswer, *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.findLocked(a.Name)
	if h == nil || h.opts.ReadOnly && !a.ReadOnly || t != s.now {
		return openAnswer{}, nil
	}
	h.users++
	return h.answer(), h.f
}

// open opens the provider. That may wait for GEOM.
func (s *store) open(ctx context.Context, t tenure, a openArgs) (openAnswer, *os.File, error) {
	o := geomlib.OpenOptions{ReadOnly: a.ReadOnly, KeepWritersOff: a.ReadOnly, SectorSize: a.SectorSize}
	p, err := s.registry.OpenOwn(ctx, a.Name, o)
	if err != nil {
		if why := s.explain(a.Name); why != "" && errors.Is(err, geomlib.ErrLocked) {
			err = fmt.Errorf("%w (%s)", err, why)
		}
		return openAnswer{}, nil, err
	}
	f, state, ok := geomlib.DescriptorOf(p)
	if !ok {
		return openAnswer{}, nil, errors.Join(fmt.Errorf("%s: no descriptor to pass on", a.Name), p.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t != s.now {
		return openAnswer{}, nil, errors.Join(errTenure, p.Close())
	}
	if s.providers[p.Name()] != nil {
		return openAnswer{}, nil, errors.Join(fmt.Errorf("%s: %w: it is open under another name", a.Name, geomlib.ErrLocked), p.Close())
	}
	h := &heldProvider{p: p, f: f, state: state, aliases: []string{a.Name}, opts: o, users: 1}
	s.providers[p.Name()] = h
	return h.answer(), f, nil
}

// holds reports whether a provider is held.
func (s *store) holds(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findLocked(name) != nil
}

// peek returns a descriptor for reading, which is the caller's, without waiting
// for GEOM.
func (s *store) peek(ctx context.Context, a openArgs) (openAnswer, *os.File, error) {
	p, err := s.registry.Open(a.Name, geomlib.OpenOptions{ReadOnly: true, NoLock: true, SectorSize: a.SectorSize})
	if err != nil {
		return openAnswer{}, nil, err
	}
	f, state, ok := geomlib.DescriptorOf(p)
	if !ok {
		return openAnswer{}, nil, errors.Join(fmt.Errorf("%s: no descriptor to pass on", a.Name), p.Close())
	}
	if ctx.Err() != nil {
		return openAnswer{}, nil, errors.Join(ctx.Err(), p.Close())
	}
	return openAnswer{Name: p.Name(), State: state}, f, nil
}

// hasLock reports whether the lock of a volume is held.
func (s *store) hasLock(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locks[id] != nil
}

// failed notes that a flush of a provider failed.
func (s *store) failed(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.providers[name]; h != nil {
		h.flushFailed = true
	}
}

// close gives one open of a provider back.
func (s *store) close(t tenure, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.providers[name]
	if h == nil || h.users == 0 || t != s.now {
		return nil
	}
	if h.users--; h.users > 0 || h.kept {
		return nil
	}
	delete(s.providers, name)
	return h.p.Close()
}

// lock returns the descriptor of a volume's lock.
func (s *store) lock(ctx context.Context, t tenure, id uint32) (*os.File, error) {
	var f *os.File
	err := geomlib.WhileLocked(ctx, s.patience, func() (err error) {
		f, err = s.tryLock(t, id)
		return err
	})
	return f, err
}

func (s *store) tryLock(t tenure, id uint32) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t != s.now {
		return nil, errTenure
	}
	if h := s.locks[id]; h != nil {
		h.users++
		return h.l.File(), nil
	}
	l, err := geomlib.LockVolume(s.lockDir, id)
	if errors.Is(err, geomlib.ErrLocked) && s.ownerEnding(id) {
		// See Guard. That the owner's worker is ending, too, is known since
		// the supervisor started.
		if err := os.Remove(geomlib.VolumeLockPath(s.lockDir, id)); err != nil {
			return nil, fmt.Errorf("take the lock of volume %08x: %w", id, err)
		}
		l, err = geomlib.LockVolume(s.lockDir, id)
	}
	if err != nil {
		return nil, err
	}
	s.locks[id] = &heldLock{l: l, users: 1}
	return l.File(), nil
}

// ownerEnding reports whether the process that has a volume's lock is ending.
func (s *store) ownerEnding(id uint32) bool {
	f, err := ownfile.Open(geomlib.VolumeLockPath(s.lockDir, id), os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	owner := ownerOf(f)
	return owner > 0 && s.ending(owner)
}

func (s *store) unlock(t tenure, id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.locks[id]
	if h == nil || h.users == 0 || t != s.now {
		return nil
	}
	if h.users--; h.users > 0 || h.kept {
		return nil
	}
	delete(s.locks, id)
	return h.l.Close()
}

// names are the providers that are open, for the next worker.
func (s *store) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.providers))
}

// newWorker forgets what the worker before had open; tidy closes what the new
// one did not open again.
func (s *store) newWorker() tenure {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now++
	for _, h := range s.providers {
		h.users, h.kept = 0, true
	}
	for _, h := range s.locks {
		h.users, h.kept = 0, true
	}
	return s.now
}

// tidy closes what the worker of that tenure, which is ready, has not opened.
func (s *store) tidy(t tenure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t != s.now {
		return nil
	}
	var err error
	for name, h := range s.providers {
		if h.kept = false; h.users == 0 {
			delete(s.providers, name)
			err = errors.Join(err, h.p.Close())
		}
	}
	for id, h := range s.locks {
		if h.kept = false; h.users == 0 {
			delete(s.locks, id)
			err = errors.Join(err, h.l.Close())
		}
	}
	return err
}

// closeAll closes everything; there is no worker.
func (s *store) closeAll() error {
	return s.tidy(s.newWorker())
}
