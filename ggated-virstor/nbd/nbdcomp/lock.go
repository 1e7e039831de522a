package nbdcomp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// lockFile opens the file that stands for an export on this host, in dir (empty:
// geomlib.DefaultRunDir). However its URI is spelled, and whatever it says of TLS, it is
// one file.
func lockFile(dir string, u nbdclient.URI) (*os.File, error) {
	if dir == "" {
		dir = geomlib.DefaultRunDir()
	}
	if err := ownfile.MakeDir(dir); err != nil {
		return nil, fmt.Errorf("lock %s: %w", u, err)
	}
	sum := sha256.Sum256([]byte(nbdclient.URI{Network: u.Network, Addr: u.Addr, Export: u.Export}.String()))
	f, err := ownfile.Open(filepath.Join(dir, fmt.Sprintf("nbd-%x.lock", sum[:12])), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", u, err)
	}
	return f, nil
}

// markUsed notes in the lock whether somebody writes to the export: a mark that is there
// still when it is locked is of one that died.
func markUsed(f *os.File, used bool) error {
	mark := []byte{'0'}
	if used {
		mark[0] = '1'
	}
	_, err := f.WriteAt(mark, 0)
	return err
}

// usedBefore reports whether the last one that wrote to the export died, or lost its
// connection.
func usedBefore(f *os.File) bool {
	var mark [1]byte
	n, err := f.ReadAt(mark[:], 0)
	return n == 1 && mark[0] == '1' || err != nil && !errors.Is(err, io.EOF)
}

// lock locks what f stands for. A lock that came with the descriptor is taken again
// without harm. geomlib.ErrLocked: another process, or provider, has it.
func lock(f *os.File, u nbdclient.URI, o geomlib.OpenOptions) error {
	if o.NoLock {
		return nil
	}
	how := unix.LOCK_EX
	if o.ReadOnly {
		how = unix.LOCK_SH
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("%s: %w of this host", u, geomlib.ErrLocked)
		default:
			return fmt.Errorf("lock %s: %w", u, err)
		}
	}
}
