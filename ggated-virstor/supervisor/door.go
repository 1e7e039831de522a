package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// door is where the supervisor hands connections to a worker: one end of a pair
// of sockets through which nothing but descriptors goes, one at a time.
type door struct {
	mu   sync.Mutex // of one message
	conn *net.UnixConn
}

// handPatience is how long a worker may leave connections where they are.
const handPatience = 5 * time.Second

// open makes a connection to the worker.
func (d *door) open() (net.Conn, error) {
	ours, theirs, err := fdrpc.SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.conn.SetWriteDeadline(time.Now().Add(handPatience))
	if err == nil {
		_, _, err = d.conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(theirs.Fd())), nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hand a connection to the worker: %w", err), ours.Close())
	}
	return ours, nil
}

// doorListener is the worker's end: a net.Listener for what the supervisor hands
// over.
type doorListener struct{ conn *net.UnixConn }

// Accept implements net.Listener. net.ErrClosed: it was closed, or the supervisor
// is gone.
func (l *doorListener) Accept() (net.Conn, error) {
	for {
		var b [1]byte
		oob := make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := l.conn.ReadMsgUnix(b[:], oob)
		if err != nil || n == 0 {
			return nil, errors.Join(net.ErrClosed, err)
		}
		files, err := fdrpc.FilesOf(oob[:oobn])
		if err != nil {
			return nil, err
		}
		if len(files) != 1 {
			fdrpc.CloseFiles(files) // too many are open here: the asker is told by the end
			continue
		}
		if c, err := fdrpc.ConnOf(files[0]); err == nil {
			return c, nil
		}
	}
}

// Close implements net.Listener.
func (l *doorListener) Close() error { return l.conn.Close() }

// Addr implements net.Listener.
func (l *doorListener) Addr() net.Addr { return l.conn.LocalAddr() }

// connectDoor takes the worker's end of the descriptor it was started with.
func connectDoor(fd uintptr) (*doorListener, error) {
	c, err := fdrpc.ConnOf(os.NewFile(fd, "door"))
	if err != nil {
		return nil, err
	}
	return &doorListener{c}, nil
}
