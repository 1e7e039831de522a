package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// Session is what was agreed on with a client. With its socket it is all that another
// server needs to go on, since nothing is in flight.
type Session struct {
	Export string `json:"export"` // as it is called, also for who named none
	// Size is what the client may take the export to have at least, bytes.
	Size     int64     `json:"size"`
	Headers  uint8     `json:"headers"`
	Contexts []Context `json:"contexts,omitempty"`
	ReadOnly bool      `json:"read_only,omitempty"` // for this client
	// Snapshot is the one that the export is, 0 for a volume.
	Snapshot uint64 `json:"snapshot,omitempty"`
	// Unread are bytes of requests that came and were not begun.
	Unread []byte    `json:"unread,omitempty"`
	Asked  bool      `json:"asked"` // for anything, ever
	Since  time.Time `json:"since"`
}

// Context is a metadata context that the client has selected.
type Context struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	// Snapshot is the one that a dirty bitmap is of, 0 for others.
	Snapshot uint64 `json:"snapshot,omitempty"`
}

// Handed is a client between two servers.
type Handed struct {
	Socket  *os.File
	Session Session
}

// negotiationGrace is how long a client may go on to negotiate with a server that hands
// its clients over.
const negotiationGrace = 3 * time.Second

// HandOver is Shutdown, but for the clients that another server may go on with: those
// without TLS whose requests were all answered. Who negotiates may end that first. The
// sockets are the caller's. A client whose writes wait for space is closed: they are never
// done.
func (s *Server) HandOver(ctx context.Context) ([]Handed, error) {
	// Whom a listener has accepted already is to be among the connections.
	s.mu.Lock()
	s.retiring = true
	for ln := range s.listeners {
		ln.Close()
	}
	s.mu.Unlock()
	s.accepting.Wait()
	err := s.shutdown(ctx, func(c *conn) {
		c.leaving.Store(true)
		if c.exp != nil {
			c.finish()
			return
		}
		time.AfterFunc(negotiationGrace, c.finish)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	handed := s.handed
	s.handed = nil
	return handed, err
}

// handOver leaves the client to the next server, if this one hands over and nothing of the
// client's is under way. The reader calls it when it takes no more requests.
func (c *conn) handOver() {
	if !c.leaving.Load() || c.isTLS || c.outstanding.Load() > 0 {
		return
	}
	socket, ok := c.raw.(interface{ File() (*os.File, error) })
	if !ok || !c.flushed() {
		return
	}
	f, err := socket.File()
	if err != nil {
		c.srv.cfg.Log.Debug("an NBD client is not handed over", "client", c.id.String(), "error", err)
		return
	}
	h := Handed{Socket: f, Session: Session{
		Export: c.exp.name, Snapshot: guidOf(c.disk), Size: c.disk.Size(), Headers: uint8(c.headers), ReadOnly: c.readOnly,
		Unread: slices.Clone(c.in.bytes()), Asked: c.asked || c.counters.requests() > 0, Since: c.since,
	}}
	for _, m := range c.contexts {
		h.Session.Contexts = append(h.Session.Contexts, Context{ID: m.id, Name: m.name, Snapshot: guidOf(m.changes)})
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.srv.handed = append(c.srv.handed, h)
}

// flushed flushes what was acknowledged, and reports whether that is durable now. The
// next process may not learn what this one's component lost, and would tell the client that
// its data is safe: who may have lost something is disconnected, and so learns of it.
func (c *conn) flushed() bool {
	if c.disk.ReadOnly() {
		return true
	}
	done := make(flushEnd, 1)
	c.disk.Submit(&virstor.Request{Op: virstor.OpFlush, Flags: virstor.MayBlock, Done: done})
	select {
	case err := <-done:
		if err != nil {
			c.srv.cfg.Log.Warn("NBD client disconnected", "client", c.id.String(), "export", c.exp.name,
				"reason", "what was acknowledged cannot be flushed before the next process goes on", "error", err)
		}
		return err == nil
	case <-c.stop:
		return false
	}
}

// flushEnd takes the error of a flush, or nil.
type flushEnd chan error

// Complete implements virstor.Completer.
func (e flushEnd) Complete(r *virstor.Request) { e <- r.Err }

// Adopt goes on with a client that another server has handed over, and owns its socket from
// then on. The client may do what it might, as far as the grants of this server let it.
// When it fails, the connection is closed.
func (s *Server) Adopt(h Handed) error {
	nc, err := connectionOf(h.Socket)
	if err != nil {
		return fmt.Errorf("go on with an NBD client: %w", err)
	}
	c := newConn(s, nc)
	if err := s.resume(c, h.Session); err != nil {
		c.dropContexts()
		c.close(err)
		return fmt.Errorf("go on with NBD client %s of %q: %w", c.id.String(), h.Session.Export, err)
	}
	return nil
}

// connectionOf is the connection of a socket, which it closes.
func connectionOf(socket *os.File) (net.Conn, error) {
	nc, err := net.FileConn(socket)
	if err = errors.Join(err, socket.Close()); err != nil {
		return nil, err
	}
	if n := nc.RemoteAddr(); n == nil || n.Network() != "unix" && n.Network() != "tcp" {
		return nil, errors.Join(errors.New("this is no connection of a client"), nc.Close())
	}
	return nc, nil
}

// resume puts c into the state that st says, and serves it.
func (s *Server) resume(c *conn, st Session) error {
	c.headers, c.since, c.asked = headers(st.Headers), st.Since, st.Asked
	if c.headers > extended || len(st.Unread) > inputSize || len(st.Contexts) > maxContexts {
		return errors.New("what was agreed on with it is not known here")
	}
	if s.cfg.RequireTLS && !c.id.unix {
		return errors.New("this server requires TLS")
	}
	if err := endSilent(c.raw, s.cfg.SilenceTimeout); err != nil {
		s.cfg.Log.Debug("the system does not watch for silent NBD clients", "err", err)
	}
	c.in.grow(inputSize)
	c.in.w = copy(c.in.buf, st.Unread)
	victim, ok := s.admit(c)
	if !ok {
		return errCrowded
	}
	if victim != nil {
		victim.close(errCrowded)
	}
	err := s.reattach(c, st)
	if err != nil {
		s.goroutines.Done() // which admit counts
		return err
	}
	go c.serve()
	return nil
}

// reattach binds c to its export and contexts.
func (s *Server) reattach(c *conn, st Session) error {
	e, err := s.attach(c, st.Export)
	switch {
	case err != nil:
		return err
	case e.name != st.Export || e.disk.Size() < st.Size || guidOf(e.disk) != st.Snapshot:
		return errors.New("the export is another one")
	}
	if st.ReadOnly {
		s.mu.Lock()
		c.readOnly = true
		s.mu.Unlock()
	}
	names := contextsOf(e.disk)
	for _, want := range st.Contexts {
		if !slices.Contains(names, want.Name) {
			return fmt.Errorf("there is no metadata context %q", want.Name)
		}
		m, err := openContext(e.disk, want.Name)
		if err != nil {
			return fmt.Errorf("metadata context %q: %w", want.Name, err)
		}
		m.id = want.ID
		c.contexts = append(c.contexts, m) // which are let go of in any case
		if guidOf(m.changes) != want.Snapshot {
			return fmt.Errorf("metadata context %q is of another snapshot now", want.Name)
		}
	}
	return nil
}

// prolong has a read go on that was interrupted because the server hands over: what of a
// request has come is to be completed. It reports false for any other error, and at the
// second time.
func (c *conn) prolong(err error) bool {
	if !c.leaving.Load() || c.prolonged || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.prolonged = true
	c.readDeadline.at = time.Time{}
	return c.readDeadline.renew() == nil
}

// interrupted says whether the connection is to finish in the midst of a request.
func (c *conn) interrupted() bool { return c.finishing() && !c.leaving.Load() }
