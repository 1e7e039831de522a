package geomlib

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
// ErrLocked, with the holder's process id, when another process has it.
func LockVolume(dir string, id uint32) (*VolumeLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock volume %08x: %w", id, err)
	}
	if err := checkRunDir(dir); err != nil {
		return nil, fmt.Errorf("lock volume %08x: %w", id, err)
	}
	path := VolumeLockPath(dir, id)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
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

// checkRunDir refuses a folder that another user put in the place of ours, as
// anybody can in /tmp: he could lead us to write elsewhere.
func checkRunDir(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if euid := os.Geteuid(); ok && euid != 0 && int(sys.Uid) != euid && sys.Uid != 0 {
		return fmt.Errorf("%s belongs to another user (uid %d): name another folder", dir, sys.Uid)
	}
	return nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// Close gives the lock up. The file stays, so that no two processes lock
// different files of the same name.
func (l *VolumeLock) Close() error { return l.f.Close() }
