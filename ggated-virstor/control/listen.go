package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// ErrRunning: another daemon answers on the socket.
var ErrRunning = errors.New("another ggated-virstor answers there")

// Listen makes the socket at path, mode 0600. One that nobody answers on any
// more is replaced; ErrRunning when somebody does. Anything else at path is
// left alone and is an error. Closing the listener removes the socket.
func Listen(path string) (*net.UnixListener, error) {
	// Two daemons that start at once must not remove each other's socket.
	lock, err := ownfile.Open(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer lock.Close()
	if err := lockSoon(lock); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The socket must never be open to others, not even before a chmod.
	old := unix.Umask(0o077)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// lockTime is how long another daemon may take to look at the socket.
const lockTime = 1500 * time.Millisecond

// lockSoon takes the lock on f, or says that it is held: ErrRunning.
func lockSoon(f *os.File) error {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return err
		}
		if time.Since(begun) >= lockTime {
			return fmt.Errorf("another process holds it (`fuser %s` tells which): %w", f.Name(), ErrRunning)
		}
	}
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	err := ownfile.CheckSocket(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockTime)
	defer cancel()
	c, err := dial(ctx, path)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen on %s: %w", path, ErrRunning)
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("listen on %s: %w (it takes no connection)", path, ErrRunning)
	}
	if !errors.Is(err, ErrNotRunning) {
		return fmt.Errorf("listen on %s: see whether it is in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

const dialTimeout = 5 * time.Second

// dial connects to path. ErrNotRunning: nobody is there.
func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w (nobody answers on %s)", ErrNotRunning, path)
	}
	return nil, fmt.Errorf("connect to ggated-virstor: %w", err)
}
