package geomlib

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
		first, _, _ := strings.Cut(string(pid[:n]), "\n")
		return nil, fmt.Errorf("volume %08x: %w (%s)", id, ErrLocked, strings.TrimSpace("process "+first))
	}
	l := &VolumeLock{f}
	if err := l.write(strconv.Itoa(os.Getpid()), l.LastLease()); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock volume %08x in %s: %w", id, path, err)
	}
	return l, nil
}

// leaseLine is the second line of a lock's file: the owner of this host's last lease of the
// volume.
const leaseLine = "lease %016x\n"

// LastLease is what NoteLease was told last, by whatever process of this host had the lock
// since it was started; 0: nothing.
func (l *VolumeLock) LastLease() (owner uint64) {
	_, rest := l.read()
	if _, err := fmt.Sscanf(rest, leaseLine, &owner); err != nil {
		return 0
	}
	return owner
}

// NoteLease keeps the owner of the lease that is about to be taken, for the next process
// that has the lock.
func (l *VolumeLock) NoteLease(owner uint64) error {
	pid, _ := l.read()
	if err := l.write(pid, owner); err != nil {
		return fmt.Errorf("note the lease in %s: %w", l.f.Name(), err)
	}
	return nil
}

// read is the first line, and the rest.
func (l *VolumeLock) read() (pid, rest string) {
	b := make([]byte, 64)
	n, _ := l.f.ReadAt(b, 0) // what is missing is not there
	pid, rest, _ = strings.Cut(string(b[:n]), "\n")
	return pid, rest
}

// write makes the process, and owner, what the file says.
func (l *VolumeLock) write(pid string, owner uint64) error {
	text := pid + "\n"
	if owner != 0 {
		text += fmt.Sprintf(leaseLine, owner)
	}
	err := l.f.Truncate(0)
	if err == nil {
		_, err = l.f.WriteAt([]byte(text), 0)
	}
	return err
}

// VolumeLockPath is the file that LockVolume locks. It holds the owner's process
// id.
func VolumeLockPath(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x.lock", id))
}

// VolumeLockFromFile makes a lock of its open file, which another process or an
// earlier program in this one locked.
func VolumeLockFromFile(f *os.File) *VolumeLock { return &VolumeLock{f} }

// LeaseMemory is implemented by locks of volumes that keep the owner of a lease.
type LeaseMemory interface {
	LastLease() (owner uint64)
	NoteLease(owner uint64) error
}

// File is the lock's open file: whoever has its descriptor holds the lock. It
// stays the lock's: do not close it.
func (l *VolumeLock) File() *os.File { return l.f }

// Close gives the lock up. The file stays, so that no two processes lock
// different files of the same name.
func (l *VolumeLock) Close() error { return l.f.Close() }
