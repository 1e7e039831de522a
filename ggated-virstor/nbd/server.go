package nbd

import (
	"context"
	"crypto/tls"
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
	cfg     Config
	pool    bufferPool
	reads   *budget      // memory for what reads return
	pollers atomic.Int32 // readers that may yet wait in poll(2)
	// inline has readers send all replies themselves. With two processors the
	// client and the reader have one each, and the writer goroutine would take
	// from them: 1 MiB reads cost 0.31 CPU s/GiB with it, 0.28 without.
	inline bool

	// certs are for the clients that turn TLS on from now; nil: none can.
	certs atomic.Pointer[tls.Config]

	goroutines sync.WaitGroup // one per connection
	accepting  sync.WaitGroup // one per listener
	sweeping   sync.Once      // starts the sweeper, which ends when swept is closed
	swept      chan struct{}

	rude     rare // clients that were disconnected
	crowded  rare // clients that found no place
	unserved rare // times that no client could be accepted

	mu        sync.Mutex // guards what follows, and export.conns, export.past, conn.exp, identity.cert, conn.lull
	exports   map[string]*export
	grants    []Grant
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	peers     map[string]int // connections by identity.peer
	closing   bool
	retiring  bool     // no more clients are accepted
	handed    []Handed // by connections, for HandOver
	accepted  uint64
	refused   uint64
	failed    uint64 // negotiations
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
		peers:     make(map[string]int),
		grants:    slices.Clone(cfg.Grants),
		swept:     make(chan struct{}),
	}
	s.certs.Store(cfg.TLS)
	// A processor that waits in poll(2) runs no other goroutine before the
	// runtime notices: leave one that does.
	s.pollers.Store(int32(runtime.GOMAXPROCS(0) - 1))
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
	s.sweeping.Do(func() { go s.sweep() })
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
			if n, say := s.unserved.note(time.Now()); say {
				s.cfg.Log.Warn("cannot accept NBD clients for now", "listener", ln.Addr().String(), "error", err, "times", n, "remedy", shortOf(err))
			}
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

// shortOf says what to do about an error of accept(2).
func shortOf(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return "a higher ulimit -n, or a lower --nbd-max-clients"
	}
	return "it is tried again"
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.retiring {
		return false
	}
	s.accepting.Add(1)
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) dropListener(ln net.Listener) {
	ln.Close()
	defer s.accepting.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing || s.retiring
}

// start serves a client, if there is room.
func (s *Server) start(nc net.Conn) {
	if err := endSilent(nc, s.cfg.SilenceTimeout); err != nil {
		s.cfg.Log.Debug("the system does not watch for silent NBD clients", "err", err)
	}
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

// admit enters c among the connections. One peer has MaxPerPeer of them at most. At
// the limit of all the connection that has been negotiating longest has to go: it
// is returned.
func (s *Server) admit(c *conn) (victim *conn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, false
	}
	if s.peers[c.id.peer] >= s.cfg.MaxPerPeer {
		victim = s.longestNegotiatingLocked(c.id.peer)
		s.sayCrowded(c, "limit of one peer", s.cfg.MaxPerPeer)
	} else if len(s.conns) >= s.cfg.MaxConns {
		victim = s.longestNegotiatingLocked("")
		s.sayCrowded(c, "limit", s.cfg.MaxConns)
	} else {
		s.enterLocked(c)
		return nil, true
	}
	if victim == nil {
		s.refused++
		return nil, false
	}
	s.forgetLocked(victim)
	s.enterLocked(c)
	return victim, true
}

func (s *Server) enterLocked(c *conn) {
	s.accepted++
	c.number = s.accepted
	s.conns[c] = struct{}{}
	s.peers[c.id.peer]++
	s.goroutines.Add(1)
}

// longestNegotiatingLocked is among the connections of a peer, or of all for the
// empty one; nil when all are past negotiation.
func (s *Server) longestNegotiatingLocked(peer string) (victim *conn) {
	for c := range s.conns {
		if c.exp == nil && (peer == "" || c.id.peer == peer) && (victim == nil || c.number < victim.number) {
			victim = c
		}
	}
	return victim
}

// sayCrowded tells of a limit on connections, at most once a minute.
func (s *Server) sayCrowded(c *conn, which string, limit int) {
	if n, say := s.crowded.note(time.Now()); say {
		s.cfg.Log.Warn("too many NBD connections: clients are refused, or disconnected while they negotiate",
			which, limit, "client", c.id.String(), "times", n)
	}
}

// attach binds c to the export called name.
func (s *Server) attach(c *conn, name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing && !c.leaving.Load() {
		return nil, ErrServerClosed
	}
	if _, ok := s.conns[c]; !ok {
		return nil, errCrowded
	}
	e, err := s.lookupLocked(c, name)
	if err != nil {
		return nil, err
	}
	c.readOnly = accessOf(s.grants, &c.id, e.name) == mayRead
	c.exp, c.lull = e, lull{since: time.Now()}
	c.reads.init(connReserve, s.cfg.ConnMemory, s.reads)
	c.reads.fair = true
	c.writes.init(connReserve, s.cfg.ConnMemory, e.writes)
	e.conns[c] = struct{}{}
	return e, nil
}

// lookup finds the export called name for c without binding to it.
func (s *Server) lookup(c *conn, name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing && !c.leaving.Load() {
		return nil, ErrServerClosed
	}
	return s.lookupLocked(c, name)
}

// exportNames lists the exports that c may use, in order.
func (s *Server) exportNames(c *conn) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.permittedLocked(c)
}

func (s *Server) permittedLocked(c *conn) []string {
	names := slices.Sorted(maps.Keys(s.exports))
	return slices.DeleteFunc(names, func(name string) bool { return accessOf(s.grants, &c.id, name) == noAccess })
}

// readsOnly says whether c may not write to e.
func (s *Server) readsOnly(c *conn, e *export) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.disk.ReadOnly() || accessOf(s.grants, &c.id, e.name) != mayWrite
}

// SetGrants says from now on who may use which exports (see Config.Grants).
// Connections in being keep what they were given.
func (s *Server) SetGrants(grants []Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = slices.Clone(grants)
}

// SetTLS has clients that turn TLS on from now use these certificates. Connections
// in being stay. It cannot turn TLS on or off.
func (s *Server) SetTLS(certs *tls.Config) error {
	if (certs == nil) != (s.certs.Load() == nil) {
		return errors.New("TLS is not turned on or off while clients are served")
	}
	s.certs.Store(certs)
	return nil
}

// leave takes c off the clients of its export: it will ask for nothing more.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.exp != nil {
		delete(c.exp.conns, c)
	}
}

// forget takes c off the books, and returns the export that it was bound to.
func (s *Server) forget(c *conn) *export {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(c)
	return c.exp
}

func (s *Server) forgetLocked(c *conn) {
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if s.peers[c.id.peer]--; s.peers[c.id.peer] == 0 {
		delete(s.peers, c.id.peer)
	}
	if c.exp == nil {
		s.failed++
		return
	}
	delete(c.exp.conns, c)
	c.counters.moveTo(&c.exp.past)
}

// keepCounts keeps what c counted after it was forgotten.
func (s *Server) keepCounts(c *conn) {
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
	return s.shutdown(ctx, (*conn).finish)
}

// shutdown is Shutdown, where ask has each connection end.
func (s *Server) shutdown(ctx context.Context, ask func(*conn)) error {
	s.mu.Lock()
	if !s.closing {
		close(s.swept)
	}
	s.closing = true
	for ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		ask(c)
	}
	s.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		s.goroutines.Wait()
		s.pool.mapped.close()
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
