package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// methodClients passes clients on: the supervisor asks the worker that leaves for those it
// had, and is asked by the next one. → clientsAnswer; their sockets
const methodClients = "clients"

// clientsAnswer is some of the clients; none: there are no more.
type clientsAnswer struct {
	Sessions []json.RawMessage `json:"sessions"`
}

const (
	// clientsAtOnce bounds the sessions of one answer, with the next one.
	clientsAtOnce = 32
	// maxSession is the longest session, bytes: what was agreed on, and requests that
	// were read.
	maxSession = 256 << 10
)

// Connection is a client between two workers: a socket, and what the worker that left says
// of it to the next one.
type Connection struct {
	Socket  *os.File
	Session json.RawMessage
}

// connections are clients that wait for who goes on with them.
type connections struct {
	mu  sync.Mutex
	all []Connection
}

func (c *connections) add(more ...Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, more...)
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// some takes as many as go into one answer.
func (c *connections) some() fdrpc.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.all), clientsAtOnce)
	var a clientsAnswer
	var r fdrpc.Reply
	for _, one := range c.all[:n] {
		a.Sessions = append(a.Sessions, one.Session)
		r.Once = append(r.Once, one.Socket)
	}
	c.all, r.Body = c.all[n:], a
	return r
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.all {
		one.Socket.Close()
	}
	c.all = nil
}

// askForClients takes clients of the other process, at most so many, until it has no more.
// Those are returned that came before an error, too.
func askForClients(ctx context.Context, peer *fdrpc.Peer, most int) (all []Connection, err error) {
	for {
		var a clientsAnswer
		files, err := peer.Call(ctx, methodClients, struct{}{}, &a)
		if err != nil {
			return all, err
		}
		if len(files) != len(a.Sessions) {
			fdrpc.CloseFiles(files)
			return all, fmt.Errorf("%d sockets of %d clients", len(files), len(a.Sessions))
		}
		if len(files) == 0 {
			return all, nil
		}
		if len(all)+len(files) > most {
			fdrpc.CloseFiles(files)
			return all, fmt.Errorf("more than %d clients", most)
		}
		for i, f := range files {
			all = append(all, Connection{f, a.Sessions[i]})
		}
	}
}

// takeClients keeps the clients of a worker that leaves. What it says of them is the next
// worker's to judge; only that it has connections kept, and nothing else, is seen to.
func (s *Supervisor) takeClients(ctx context.Context, w *worker) {
	all, err := askForClients(ctx, w.peer, s.opt.MaxClients)
	if err != nil && !errors.Is(err, fdrpc.ErrGone) {
		s.log.Warn("NBD clients are disconnected: the worker that ends does not hand them on", "error", err)
	}
	for _, c := range all {
		if len(c.Session) > maxSession || !isConnection(c.Socket) {
			c.Socket.Close()
			continue
		}
		s.clients.add(c)
	}
}

// isConnection says whether f is a connected socket of a client.
func isConnection(f *os.File) bool {
	rc, err := f.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = rc.Control(func(fd uintptr) {
		kind, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_STREAM {
			return
		}
		_, err = unix.Getpeername(int(fd))
		is = err == nil
	})
	return is && err == nil
}

// leaving are the clients of a worker that leaves.
type leaving struct {
	connections
	once  sync.Once
	known chan struct{} // closed when all are there
	taken chan struct{} // closed when the supervisor has been told that there are no more
}

func newLeaving() *leaving { return &leaving{known: make(chan struct{}), taken: make(chan struct{})} }

// answer is the worker's, once it knows who there is.
func (l *leaving) answer(ctx context.Context) (fdrpc.Reply, error) {
	select {
	case <-l.known:
	case <-ctx.Done():
		return fdrpc.Reply{}, ctx.Err()
	}
	r := l.some()
	if len(r.Once) == 0 {
		l.once.Do(func() { close(l.taken) })
	}
	return r, nil
}

// LeaveClients leaves clients to the next worker. It returns when the supervisor has them,
// or ctx ends; sockets are closed then that it does not have. It is called once, upon Leave.
func (c *Client) LeaveClients(ctx context.Context, all []Connection) error {
	defer c.leaving.close()
	c.leaving.add(all...)
	close(c.leaving.known)
	select {
	case <-c.leaving.taken:
		return nil
	case <-c.peer.Context().Done():
		return fmt.Errorf("hand NBD clients on: %w", fdrpc.ErrGone)
	case <-ctx.Done():
		return fmt.Errorf("hand NBD clients on: %w", ctx.Err())
	}
}

// TakeClients are those that the worker before left. The sockets are the caller's.
func (c *Client) TakeClients(ctx context.Context, begin Start) ([]Connection, error) {
	if begin.Clients == 0 {
		return nil, nil
	}
	all, err := askForClients(ctx, c.peer, begin.Clients)
	if err != nil {
		return all, fmt.Errorf("go on with NBD clients: %w", err)
	}
	return all, nil
}

// Alive reports whether the supervisor is there.
func (c *Client) Alive() bool { return c.peer.Context().Err() == nil }
