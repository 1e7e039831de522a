package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
)

// Guard is a file that is locked while a process lives, and holds its number.
//
// A process that was killed may not get to its end: closing a component, it waits
// for GEOM, which waits for somebody to serve a device. It keeps its locks
// then, though none of its threads will ever run again. So a lock does not count
// whose owner is known to be ending.
type Guard struct{ f *os.File }

// LockGuard locks the file at path, waiting for its owner's end until patience is
// over. geomlib.ErrLocked: there is an owner.
func LockGuard(path string, patience time.Duration) (*Guard, error) {
	return lockGuard(path, patience, ending)
}

func lockGuard(path string, patience time.Duration, ending func(pid int) bool) (*Guard, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock against a second daemon: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			g := &Guard{f}
			return g, g.Own()
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		owner := ownerOf(f)
		f.Close()
		if err == unix.EWOULDBLOCK && owner > 0 && ending(owner) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("take the lock of process %d, which is ending: %w", owner, err)
			}
			continue
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: %w (process %d)", path, geomlib.ErrLocked, owner)
		}
	}
}

// Own notes this process as the owner.
func (g *Guard) Own() error {
	if err := g.f.Truncate(0); err != nil {
		return fmt.Errorf("lock %s: %w", g.f.Name(), err)
	}
	if _, err := g.f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("lock %s: %w", g.f.Name(), err)
	}
	return nil
}

// Close gives the lock up, unless another process has the descriptor, too.
func (g *Guard) Close() error { return g.f.Close() }

// ownerOf is the process whose number is in the file, or 0.
func ownerOf(f *os.File) int {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}
