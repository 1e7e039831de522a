package geomlib

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

// VolumeLock keeps other processes from serving a volume. A lock on a component
// alone would not: it does not reach across two mounts of devfs.
type VolumeLock struct{ f *os.File }

// DefaultRunDir is where volumes are locked: a folder in /var/run for root, and
// one of the user's own for others.
func DefaultRunDir() string {
	if os.Geteuid() == 0 {
		return "/var/run/ggated-virstor"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "ggated-virstor")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("ggated-virstor-%d", os.Geteuid()))
}

// LockVolume locks the volume of that id in dir, which is made if need be.
// ErrLocked, with the holder's process id, when another process has it;
// ownfile.ErrUnsafe when others can put something else in the place of dir or of
// the lock.
func LockVolume(dir string, id uint32) (*VolumeLock, error) {
	if err := ownfile.MakeDir(dir); err != nil {
		return nil, fmt.Errorf("lock volume %08x: %w", id, err)
	}
	path := VolumeLockPath(dir, id)
	f, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock volume %08x: %w", id, err)
	}
	err = ignoringEINTR(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock volume %08x in %s: %w", id, path, err)
		}
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0)
		return nil, fmt.Errorf("volume %08x: %w (%s)", id, ErrLocked, strings.TrimSpace("process "+string(pid[:n])))
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock volume %08x in %s: %w", id, path, err)
	}
	return &VolumeLock{f}, nil
}

// VolumeLockPath is the file that LockVolume locks. It holds the owner's process
// id.
func VolumeLockPath(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x.lock", id))
}

// VolumeLockFromFile makes a lock of its open file, which another process or an
// earlier program in this one locked.
func VolumeLockFromFile(f *os.File) *VolumeLock { return &VolumeLock{f} }

// File is the lock's open file: whoever has its descriptor holds the lock. It
// stays the lock's: do not close it.
func (l *VolumeLock) File() *os.File { return l.f }

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// Close gives the lock up. The file stays, so that no two processes lock
// different files of the same name.
func (l *VolumeLock) Close() error { return l.f.Close() }
