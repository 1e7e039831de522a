package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// Client is the supervisor as its worker sees it. It is a daemon.Opener and
// gatepub.Units.
type Client struct {
	peer     *fdrpc.Peer
	registry geomlib.Registry
	done     chan struct{}
	// guard is held until the process ends.
	guard *Guard
	door  net.Listener // of administrators' connections; nil in tests
	until *os.File     // or nil

	leaving *leaving

	stopOnce sync.Once
	stop     chan Ending // capacity 1

	lastRoomOnce sync.Once
	lastRoom     chan struct{}
}

const (
	workerEnv = "GGATED_VIRSTOR_WORKER"
	workerFD  = 3
	doorFD    = 4
	// untilEnv says that there is untilFD. Older supervisors pass none.
	untilEnv = "GGATED_VIRSTOR_UNTIL"
	untilFD  = 5
)

// IsWorker reports whether this process was started by a supervisor.
func IsWorker() bool { return os.Getenv(workerEnv) == "1" }

// Connect reaches the supervisor that started this process.
func Connect() (*Client, error) {
	c, err := fdrpc.ConnOf(os.NewFile(workerFD, "supervisor"))
	if err != nil {
		return nil, err
	}
	d, err := connectDoor(doorFD)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	client := newClient(c)
	client.door = d
	if os.Getenv(untilEnv) == "1" {
		client.until = os.NewFile(untilFD, "until")
		unix.CloseOnExec(untilFD)
	}
	return client, nil
}

// Until is what has to stay open while anything that this process began at what it was
// passed may still be done, also after its death: the supervisor starts no other worker
// until then. It is the client's to close, which it never does. nil: the supervisor does not
// look at it, and waits for system calls alone.
func (c *Client) Until() *os.File { return c.until }

// OpenBy has the registry, which is given the supervisor as what makes connections, make
// providers of the descriptors that that passes on. It is called before anything is
// opened.
func (c *Client) OpenBy(registry func(geomlib.Connector) geomlib.Registry) {
	c.registry = registry(connector{c})
}

func newClient(conn *net.UnixConn) *Client {
	c := &Client{done: make(chan struct{}), stop: make(chan Ending, 1), lastRoom: make(chan struct{}), leaving: newLeaving()}
	c.peer = fdrpc.New(conn, fdrpc.Config{Self: "worker", Methods: c.methods(), Sentinels: sentinels})
	go func() {
		defer close(c.done)
		_ = c.peer.Run() // whatever ended it, the supervisor is gone
		c.end(Leave)
	}()
	return c
}

// Close ends the connection.
func (c *Client) Close() {
	c.peer.Close()
	<-c.done
}

// Stop receives once how the worker is to end. When the supervisor dies it is
// Leave.
func (c *Client) Stop() <-chan Ending { return c.stop }

func (c *Client) end(e Ending) { c.stopOnce.Do(func() { c.stop <- e }) }

// LastRoom is closed when the system goes down, and file systems on volumes need the
// reserves to write what they have in memory.
func (c *Client) LastRoom() <-chan struct{} { return c.lastRoom }

// methods are what the supervisor can have a worker do.
func (c *Client) methods() fdrpc.Methods {
	return fdrpc.Methods{
		methodStop:  does(func(_ context.Context, a stopArgs) error { c.end(a.Ending); return nil }),
		methodAlive: plain(func() (fdrpc.Reply, error) { return fdrpc.Reply{}, nil }),
		methodLastRoom: plain(func() (fdrpc.Reply, error) {
			c.lastRoomOnce.Do(func() { close(c.lastRoom) })
			return fdrpc.Reply{}, nil
		}),
		methodClients: fdrpc.Bare(c.leaving.answer),
	}
}

// Passed are what the supervisor has opened for the worker.
type Passed struct {
	// Control is for connections that the supervisor has accepted and made sure of.
	Control net.Listener
	Publish publish.Resources
}

// Hello asks for the beginning.
func (c *Client) Hello(ctx context.Context) (Start, Passed, error) {
	var s Start
	p := Passed{Control: c.door, Publish: make(publish.Resources)}
	files, err := c.peer.Call(ctx, methodHello, struct{}{}, &s)
	if err != nil {
		return s, p, err
	}
	want := s.NBD + 1
	if s.Gate {
		want++
	}
	if s.NBD < 0 || len(files) != want {
		fdrpc.CloseFiles(files)
		return s, p, fmt.Errorf("%d descriptors for %+v", len(files), s)
	}
	p.Publish[control.NBD] = files[:s.NBD]
	c.guard = &Guard{files[s.NBD]}
	if s.Gate {
		p.Publish[control.Gate] = files[s.NBD+1:]
	}
	return s, p, c.guard.Own()
}

// Ready tells that volumes are served.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.peer.Call(ctx, methodReady, struct{}{}, nil)
	return err
}

// one is call for an answer with one descriptor.
func (c *Client) one(method string, args, answer any) (*os.File, error) {
	files, err := c.peer.Call(c.peer.Context(), method, args, answer)
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		fdrpc.CloseFiles(files)
		return nil, fmt.Errorf("%s: %d descriptors", method, len(files))
	}
	return files[0], nil
}

// Open implements daemon.Opener.
func (c *Client) Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error) {
	return c.open(methodOpen, name, geomlib.OpenOptions{ReadOnly: readOnly, SectorSize: sectorSize,
		FlushFails: func(name string) {
			// With the supervisor gone nobody is given the descriptor any more.
			_, _ = c.peer.Call(c.peer.Context(), methodFailed, openAnswer{Name: name}, nil)
		}})
}

// Peek implements daemon.Opener.
func (c *Client) Peek(name string, sectorSize int) (geomlib.Provider, error) {
	return c.open(methodPeek, name, geomlib.OpenOptions{ReadOnly: true, NoLock: true, SectorSize: sectorSize})
}

func (c *Client) open(method, name string, o geomlib.OpenOptions) (geomlib.Provider, error) {
	var a openAnswer
	f, err := c.one(method, openArgs{Name: name, ReadOnly: o.ReadOnly, SectorSize: o.SectorSize}, &a)
	if err != nil {
		return nil, err
	}
	o.FlushHasFailed = a.FlushFailed
	if a.Held {
		o.Closed = c.giveBack
	}
	p, err := c.registry.Adopt(f, a.Name, a.State, o)
	if err != nil {
		f.Close()
		if o.Closed != nil {
			err = errors.Join(err, o.Closed(a.Name))
		}
		return nil, err
	}
	return p, nil
}

// giveBack has the supervisor close a provider, unless this process has it open once more.
func (c *Client) giveBack(name string) error {
	_, err := c.peer.Call(c.peer.Context(), methodClose, openAnswer{Name: name}, nil)
	return ignoreGone(err)
}

// connector is the supervisor as what makes connections.
type connector struct{ c *Client }

// Connect implements geomlib.Connector.
func (k connector) Connect(ctx context.Context, name string) (f *os.File, state []byte, err error) {
	var a openAnswer
	files, err := k.c.peer.Call(ctx, methodConnect, openArgs{Name: name}, &a)
	if err != nil {
		return nil, nil, err
	}
	if len(files) != 1 {
		fdrpc.CloseFiles(files)
		return nil, nil, fmt.Errorf("connect to %s: %d descriptors", name, len(files))
	}
	return files[0], a.State, nil
}

// ignoreGone: what a dead supervisor held is closed.
func ignoreGone(err error) error {
	if errors.Is(err, fdrpc.ErrGone) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// LockVolume implements daemon.Opener.
func (c *Client) LockVolume(id uint32) (io.Closer, error) {
	f, err := c.one(methodLock, lockArgs{id}, nil)
	if err != nil {
		return nil, err
	}
	return &lock{c: c, f: f, id: id}, nil
}

// lock is the worker's share of a volume's lock.
type lock struct {
	c  *Client
	f  *os.File
	id uint32
}

// LastLease implements geomlib.LeaseMemory.
func (l *lock) LastLease() uint64 { return geomlib.VolumeLockFromFile(l.f).LastLease() }

// NoteLease implements geomlib.LeaseMemory. The file names the supervisor as who has the
// lock, and goes on to.
func (l *lock) NoteLease(owner uint64) error { return geomlib.VolumeLockFromFile(l.f).NoteLease(owner) }

func (l *lock) Close() error {
	_, err := l.c.peer.Call(l.c.peer.Context(), methodUnlock, lockArgs{l.id}, nil)
	return errors.Join(l.f.Close(), ignoreGone(err))
}

// Acquire implements gatepub.Units.
func (c *Client) Acquire(ctx context.Context, s units.Spec) (u units.Unit, err error) {
	_, err = c.peer.Call(ctx, methodAcquire, s, &u)
	return u, err
}

// Confirm implements gatepub.Units.
func (c *Client) Confirm(ctx context.Context, k units.Key, u units.Unit) error {
	_, err := c.peer.Call(ctx, methodConfirm, unitArgs{Key: k, Unit: u}, nil)
	return err
}

// Mode implements gatepub.Units.
func (c *Client) Mode(ctx context.Context, unit int) (m geomlib.Mode, err error) {
	limit := modeLimit
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end) * 9 / 10 // so that the supervisor's answer comes in time
	}
	_, err = c.peer.Call(ctx, methodMode, unitArgs{Unit: units.Unit{Number: unit}, Limit: limit}, &m)
	return m, err
}

// Resize implements gatepub.Units.
func (c *Client) Resize(unit int, size int64) error {
	_, err := c.peer.Call(c.peer.Context(), methodResize, unitArgs{Unit: units.Unit{Number: unit}, Size: size}, nil)
	return err
}

// RecordProviders implements gatepub.Units.
func (c *Client) RecordProviders(id uint32, providers []string) error {
	_, err := c.peer.Call(c.peer.Context(), methodRecord, unitArgs{Key: units.Key{ID: id}, Providers: providers}, nil)
	return err
}

// Release implements gatepub.Units.
func (c *Client) Release(k units.Key, unit int, force bool) error {
	_, err := c.peer.Call(c.peer.Context(), methodRelease, unitArgs{Key: k, Unit: units.Unit{Number: unit}, Force: force}, nil)
	return err
}

// Leftovers implements gatepub.Units.
func (c *Client) Leftovers() (left map[uint32][]string, err error) {
	_, err = c.peer.Call(c.peer.Context(), methodLeftovers, struct{}{}, &left)
	return left, err
}

// UnitsOf implements gatepub.Units.
func (c *Client) UnitsOf(id uint32) (us map[uint64]units.Unit, err error) {
	_, err = c.peer.Call(c.peer.Context(), methodUnitsOf, unitArgs{Key: units.Key{ID: id}}, &us)
	return us, err
}

// CheckComponents implements gatepub.Units.
func (c *Client) CheckComponents(ctx context.Context, providers []string) error {
	_, err := c.peer.Call(ctx, methodCheck, unitArgs{Providers: providers}, nil)
	return err
}
