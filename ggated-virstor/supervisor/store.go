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
}

type heldProvider struct {
	p       geomlib.Provider
	f       *os.File
	state   []byte   // that goes along with f
	aliases []string // under which it was asked for
	opts    geomlib.OpenOptions
	users   int // opens of the present worker
	// flushFailed: what was written through f may be lost, though the system will
	// not say so again. It holds for every worker until the provider is closed.
	flushFailed bool
}

// answer is what a worker is told beside the descriptor.
func (h *heldProvider) answer() openAnswer {
	return openAnswer{Name: h.p.Name(), State: h.state, FlushFailed: h.flushFailed}
}

type heldLock struct {
	l     *geomlib.VolumeLock
	users int
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

// reopen returns the descriptor that is held, nil if there is none that will do.
func (s *store) reopen(a openArgs) (openAnswer, *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.findLocked(a.Name)
	if h == nil || h.opts.ReadOnly && !a.ReadOnly {
		return openAnswer{}, nil
	}
	h.users++
	return h.answer(), h.f
}

// open opens the provider. That may wait for GEOM.
func (s *store) open(ctx context.Context, a openArgs) (openAnswer, *os.File, error) {
	o := geomlib.OpenOptions{ReadOnly: a.ReadOnly, KeepWritersOff: a.ReadOnly, SectorSize: a.SectorSize}
	p, err := s.registry.Open(a.Name, o)
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
	if ctx.Err() != nil { // the worker that asked is gone, and another may ask for the same
		return openAnswer{}, nil, errors.Join(ctx.Err(), p.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.providers[p.Name()] != nil {
		return openAnswer{}, nil, errors.Join(fmt.Errorf("%s: %w: it is open under another name", a.Name, geomlib.ErrLocked), p.Close())
	}
	h := &heldProvider{p: p, f: f, state: state, aliases: []string{a.Name}, opts: o, users: 1}
	s.providers[p.Name()] = h
	return h.answer(), f, nil
}

// held returns the descriptor that is held, nil if there is none, and counts no
// user.
func (s *store) held(name string) (openAnswer, *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.findLocked(name)
	if h == nil {
		return openAnswer{}, nil
	}
	return h.answer(), h.f
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
func (s *store) close(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.providers[name]
	if h == nil {
		return nil
	}
	if h.users--; h.users > 0 {
		return nil
	}
	delete(s.providers, name)
	return h.p.Close()
}

// lock returns the descriptor of a volume's lock.
func (s *store) lock(ctx context.Context, id uint32) (*os.File, error) {
	deadline := time.Now().Add(s.patience)
	for {
		f, err := s.tryLock(id)
		if !errors.Is(err, geomlib.ErrLocked) || time.Now().After(deadline) {
			return f, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (s *store) tryLock(id uint32) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

func (s *store) unlock(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.locks[id]
	if h == nil {
		return nil
	}
	if h.users--; h.users > 0 {
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
func (s *store) newWorker() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.providers {
		h.users = 0
	}
	for _, h := range s.locks {
		h.users = 0
	}
}

func (s *store) tidy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for name, h := range s.providers {
		if h.users == 0 {
			delete(s.providers, name)
			err = errors.Join(err, h.p.Close())
		}
	}
	for id, h := range s.locks {
		if h.users == 0 {
			delete(s.locks, id)
			err = errors.Join(err, h.l.Close())
		}
	}
	return err
}

// closeAll closes everything; there is no worker.
func (s *store) closeAll() error {
	s.newWorker()
	return s.tidy()
}
