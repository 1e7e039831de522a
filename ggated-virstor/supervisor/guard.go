package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// Guard is a file that is locked while a process lives, and holds its number.
//
// A process that was killed may not get to its end: closing a component, it waits
// for GEOM, which waits for somebody to serve a device. It keeps its locks
// then, though none of its threads will ever run again. So a lock does not count
// whose owner is known to be ending.
type Guard struct{ f *os.File }

// guardSilence is how long LockGuard waits without a word.
const guardSilence = time.Second

// LockGuard locks the file at path, waiting for its owner's end until patience is
// over or ctx ends, and logs that it waits. geomlib.ErrLocked: there is an owner.
// ownfile.ErrUnsafe: the file is not this program's.
func LockGuard(ctx context.Context, path string, patience time.Duration, log *slog.Logger) (*Guard, error) {
	return lockGuard(ctx, path, patience, log, ending)
}

func lockGuard(ctx context.Context, path string, patience time.Duration, log *slog.Logger, ending func(pid int) bool) (*Guard, error) {
	begun, said := time.Now(), false
	for {
		g, owner, err := tryGuard(path, ending)
		if err != nil || g != nil {
			return g, err
		}
		waited := time.Since(begun)
		if waited >= patience {
			return nil, fmt.Errorf("%s: %w (process %d)", path, geomlib.ErrLocked, owner)
		}
		if waited > guardSilence && !said {
			said = true
			log.Warn("waiting for a process of an earlier daemon to end", "lock", path, "process", owner, "at most", patience)
		}
		select {
		case <-time.After(min(50*time.Millisecond, patience-waited)):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w (process %d): stopped while waiting for it to end", path, geomlib.ErrLocked, owner)
		}
	}
}

// tryGuard locks the file at path unless it has an owner, whose number it returns.
func tryGuard(path string, ending func(pid int) bool) (g *Guard, owner int, err error) {
	f, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("lock against a second daemon: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		g := &Guard{f}
		if err := g.Own(); err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		return g, 0, nil
	}
	owner = ownerOf(f)
	f.Close()
	if err != unix.EWOULDBLOCK && err != unix.EINTR {
		return nil, 0, fmt.Errorf("lock %s: %w", path, err)
	}
	if err == unix.EWOULDBLOCK && owner > 0 && ending(owner) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, 0, fmt.Errorf("take the lock of process %d, which is ending: %w", owner, err)
		}
		return tryGuard(path, ending)
	}
	return nil, owner, nil
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
	first, _, _ := bytes.Cut(b[:n], []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(first)))
	if err != nil {
		return 0
	}
	return pid
}
