package nbd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Server serves exports to NBD clients. Its methods may be called by many
// goroutines at once.
type Server struct {
	cfg   Config
	pool  bufferPool
	reads *budget      // memory for what reads return
	seats atomic.Int32 // readers that may yet wait in poll(2)
	// inline has readers send all replies themselves. With two processors the
	// client and the reader have one each, and the writer goroutine would take
	// from them: 1 MiB reads cost 0.31 CPU s/GiB with it, 0.28 without.
	inline bool

	goroutines sync.WaitGroup // one per connection

	mu          sync.Mutex // guards what follows, and export.conns, export.past, conn.exp
	exports     map[string]*export
	listeners   map[net.Listener]struct{}
	conns       map[*conn]struct{}
	closing     bool
	accepted    uint64
	refused     uint64
	failed      uint64 // negotiations
	limitLogged time.Time
	limitUnsaid uint64 // refusals since limitLogged
}

// NewServer makes a server without exports. It fails if the configuration
// contradicts itself.
func NewServer(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		reads:     newBudget(cfg.ReadMemory),
		inline:    runtime.NumCPU() <= 2,
		exports:   make(map[string]*export),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}
	// A processor that waits in poll(2) runs no other goroutine before the
	// runtime notices: leave one that does.
	s.seats.Store(int32(runtime.GOMAXPROCS(0) - 1))
	return s, nil
}

// Serve accepts clients on ln until ctx is cancelled or the server is shut
// down, and returns nil then; connections live on until Shutdown. It closes ln.
// Several listeners may be served at once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if !s.addListener(ln) {
		ln.Close()
		return ErrServerClosed
	}
	defer s.dropListener(ln)
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	const firstDelay, lastDelay = 5 * time.Millisecond, time.Second
	delay := firstDelay
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			delay = firstDelay
			s.start(nc)
		case ctx.Err() != nil || s.isClosing():
			return nil
		case transient(err):
			s.cfg.Log.Warn("cannot accept NBD clients for now", "listener", ln.Addr().String(), "err", err)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil
			}
			delay = min(2*delay, lastDelay)
		default:
			return fmt.Errorf("accept NBD clients on %s: %w", ln.Addr(), err)
		}
	}
}

// transient says that accept may work again later: the client gave up, or
// descriptors or memory are short.
func transient(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	}, func(e error) bool { return errors.Is(err, e) })
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) dropListener(ln net.Listener) {
	ln.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// start serves a client, if there is room.
func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	victim, ok := s.admit(c)
	if !ok {
		nc.Close()
		return
	}
	if victim != nil {
		victim.close(errCrowded)
	}
	go c.serve()
}

// admit enters c among the connections. At the limit the connection that has
// been negotiating longest has to go: it is returned.
func (s *Server) admit(c *conn) (victim *conn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, false
	}
	if len(s.conns) >= s.cfg.MaxConns {
		for other := range s.conns {
			if other.exp == nil && (victim == nil || other.number < victim.number) {
				victim = other
			}
		}
		s.logLimitLocked()
		if victim == nil {
			s.refused++
			return nil, false
		}
		s.forgetLocked(victim)
	}
	s.accepted++
	c.number = s.accepted
	s.conns[c] = struct{}{}
	s.goroutines.Add(1)
	return victim, true
}

// logLimitLocked tells of the limit on connections, at most once a minute.
func (s *Server) logLimitLocked() {
	s.limitUnsaid++
	now := time.Now()
	if now.Sub(s.limitLogged) < time.Minute {
		return
	}
	s.cfg.Log.Warn("too many NBD connections: clients are refused, or disconnected while they negotiate",
		"limit", s.cfg.MaxConns, "times", s.limitUnsaid)
	s.limitLogged, s.limitUnsaid = now, 0
}

// attach binds c to the export called name.
func (s *Server) attach(c *conn, name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrServerClosed
	}
	if _, ok := s.conns[c]; !ok {
		return nil, errCrowded
	}
	e := s.lookupLocked(name)
	if e == nil {
		return nil, ErrNoExport
	}
	c.exp = e
	e.conns[c] = struct{}{}
	return e, nil
}

// lookup finds the export called name without binding to it.
func (s *Server) lookup(name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrServerClosed
	}
	if e := s.lookupLocked(name); e != nil {
		return e, nil
	}
	return nil, ErrNoExport
}

// exportNames lists the exports in order.
func (s *Server) exportNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.exports))
}

// leave takes c off the clients of its export: it will ask for nothing more.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.exp != nil {
		delete(c.exp.conns, c)
	}
}

// forget takes c off the books.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(c)
}

func (s *Server) forgetLocked(c *conn) {
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if c.exp == nil {
		s.failed++
		return
	}
	delete(c.exp.conns, c)
	c.counters.moveTo(&c.exp.past)
}

// settle keeps what c counted after it was forgotten.
func (s *Server) settle(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.exp != nil {
		c.counters.moveTo(&c.exp.past)
	}
}

// Shutdown stops accepting clients, lets those that negotiate go, and waits
// for the requests in flight to be answered before it closes their connections;
// writes that a disk holds for space are not waited for. When ctx ends first, it closes them at once and returns ctx's error. When it
// returns, nothing is submitted to any disk any more.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		c.finish()
	}
	s.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		s.goroutines.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.close(ErrServerClosed)
	}
	<-gone
	return fmt.Errorf("NBD clients were cut off: %w", ctx.Err())
}
