package nbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

var (
	// ErrInUse means that clients are connected to the export.
	ErrInUse = errors.New("NBD clients are connected")
	// ErrNoExport means that there is no export of that name.
	ErrNoExport = errors.New("no such NBD export")
	// ErrServerClosed means that the server is shut down or shutting down.
	ErrServerClosed = errors.New("NBD server closed")
)

// maxExportName is the longest name that every client can be expected to
// take, bytes (doc/proto.md, "Conventions").
const maxExportName = 256

// export is a disk under its name.
type export struct {
	name   string
	disk   Disk
	named  bool    // the empty name never means it
	writes *budget // memory for the payload of writes
	order  *order

	conns map[*conn]struct{} // guarded by Server.mu
	past  counters           // of connections that are gone; guarded by Server.mu
}

// AddExport publishes d under name, 1 to 256 bytes of UTF-8 without NUL.
func (s *Server) AddExport(name string, d Disk) error { return s.addExport(name, d, false) }

// AddSnapshot is AddExport of what another export was at some moment. Clients that name no
// export do not mean it.
func (s *Server) AddSnapshot(name string, d Disk) error { return s.addExport(name, d, true) }

// AddVolume is AddExport of a further volume of the pool of another export. Clients that name
// no export do not mean it, either.
func (s *Server) AddVolume(name string, d Disk) error { return s.addExport(name, d, true) }

func (s *Server) addExport(name string, d Disk, named bool) error {
	if name == "" || len(name) > maxExportName || !utf8.ValidString(name) || containsNUL(name) {
		return fmt.Errorf("publish %q: an NBD export's name is 1 to %d bytes of UTF-8 without NUL", name, maxExportName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return fmt.Errorf("publish %q: %w", name, ErrServerClosed)
	}
	if _, ok := s.exports[name]; ok {
		return fmt.Errorf("publish %q: there is an NBD export of that name", name)
	}
	s.exports[name] = &export{
		name:   name,
		disk:   d,
		named:  named,
		writes: newBudget(s.cfg.WriteMemory),
		order:  newOrder(d, s.cfg.OrphanMemory, &s.goroutines),
		conns:  make(map[*conn]struct{}),
	}
	return nil
}

func containsNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}

// RemoveExport withdraws an export. It fails with ErrInUse while clients are
// connected, unless force is set: then they are disconnected as by Kick. When
// it returns nil, nothing is submitted to the disk any more; requests submitted
// before may still be in flight.
func (s *Server) RemoveExport(name string, force bool) error {
	s.mu.Lock()
	e, ok := s.exports[name]
	switch {
	case !ok:
		s.mu.Unlock()
		return fmt.Errorf("withdraw %q: %w", name, ErrNoExport)
	case !force && len(e.conns) > 0:
		n := len(e.conns)
		s.mu.Unlock()
		return fmt.Errorf("withdraw %q: %w (%d)", name, ErrInUse, n)
	}
	delete(s.exports, name)
	s.mu.Unlock()
	s.disconnect(s.clients(e))
	return nil
}

// Conns is the number of clients connected to an export. A client that has
// said goodbye is not counted, even if requests of its are still in flight.
func (s *Server) Conns(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.exports[name]; ok {
		return len(e.conns)
	}
	return 0
}

// Writers is how many of Conns may write: what they were granted lets them, and the
// disk does.
func (s *Server) Writers(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.exports[name]
	if !ok || e.disk.ReadOnly() {
		return 0
	}
	n := 0
	for c := range e.conns {
		if !c.readOnly {
			n++
		}
	}
	return n
}

// Kick disconnects the clients of an export and returns how many there were.
// They may connect again. Requests in flight are answered before, but for
// writes that the disk holds for space; when ctx ends first, they are carried
// out unanswered. When Kick returns, nothing of theirs is submitted to the disk
// any more.
func (s *Server) Kick(ctx context.Context, name string) int {
	s.mu.Lock()
	e, ok := s.exports[name]
	s.mu.Unlock()
	if !ok {
		return 0
	}
	n := s.Conns(name)
	conns := s.clients(e)
	for _, c := range conns {
		c.finish()
	}
	for _, c := range conns {
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	s.disconnect(conns)
	return n
}

// clients are the connections of e, those that have said goodbye too.
func (s *Server) clients(e *export) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var conns []*conn
	for c := range s.conns {
		if c.exp == e {
			conns = append(conns, c)
		}
	}
	return conns
}

// disconnect closes connections and waits until their readers ended.
func (s *Server) disconnect(conns []*conn) {
	for _, c := range conns {
		c.close(errKicked)
	}
	for _, c := range conns {
		<-c.done
	}
}

// lookupLocked finds the export that c means, among those it may use. The empty
// name is the only one when there is exactly one beside snapshots. The caller holds s.mu.
func (s *Server) lookupLocked(c *conn, name string) (*export, error) {
	if name == "" {
		names := slices.DeleteFunc(s.permittedLocked(c), func(name string) bool { return s.exports[name].named })
		if len(names) == 1 {
			return s.exports[names[0]], nil
		}
	}
	e := s.exports[name]
	switch {
	case e != nil && accessOf(s.grants, &c.id, name) != noAccess:
		return e, nil
	case len(s.grants) > 0:
		return nil, errForbidden
	}
	return nil, ErrNoExport
}
