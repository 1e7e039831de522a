package geomlib

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ondisk"
)

// OpenOptions says how a provider is opened. The zero value opens it for
// reading and writing, and locks it.
type OpenOptions struct {
	// ReadOnly refuses writes with EROFS and takes a lock that other readers
	// may share.
	ReadOnly bool
	// NoLock takes no lock: to look at a provider that somebody serves.
	NoLock bool
	// SectorSize of a regular file, a power of two from 512 to 131072. 0 means
	// the one its VIRSTOR metadata is found by (512 or 4096 bytes before the
	// end), else 512. Devices have their own.
	SectorSize int
	// Direct has reads and writes go past the cache of the system (O_DIRECT).
	// ErrNotSupported: that cannot be. Without it a descriptor that another process opened
	// so does not stay so.
	Direct bool
	// Rings, if not nil, do what goes past the cache by Direct and is started (Starter).
	// They must outlive the provider.
	Rings *Rings
	// KeepWritersOff opens for writing what is only read, where the medium
	// allows, because only that keeps others from writing to it.
	KeepWritersOff bool
	// Closed, if not nil, is called once with the provider's name when it is
	// closed, after its descriptor. Its error is Close's.
	Closed func(name string) error
	// FlushHasFailed is what FlushFailed says of a descriptor that another process
	// had before.
	FlushHasFailed bool
	// FlushFails, if not nil, is called with the provider's name whenever a flush
	// has failed, before whoever asked for it is told.
	FlushFails func(name string)
}

const (
	defaultSector = 512
	maxSector     = 128 << 10
)

// errKind is wrapped when a name is neither a disk nor a regular file.
var errKind = errors.New("neither a disk nor a regular file")

// Open opens the file or device called name: a path, or a name below /dev with or
// without that prefix. ErrLocked means that another process has it. Whoever is to
// open whatever a user names asks a Registry.
func Open(name string, o OpenOptions) (Provider, error) {
	path, err := findProvider(name)
	if err != nil {
		return nil, err
	}
	f, err := openPath(path, o)
	if err != nil {
		return nil, err
	}
	p, err := FromFile(f, path, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// FromFile makes a provider of a file that is open already, such as one that a
// privileged process passed on. The provider owns f from then on; after an
// error f is the caller's still. A lock on f travels with its descriptor, so
// taking it again here succeeds.
func FromFile(f *os.File, name string, o OpenOptions) (Provider, error) {
	path := Name(name).Clean()
	// From here on f is never in the runtime's poller: Fd made it blocking.
	p := &file{f: f, fd: int(f.Fd()), name: path, readOnly: o.ReadOnly, closed: o.Closed,
		flushHasFailed: o.FlushHasFailed, flushFails: o.FlushFails}
	again := isDirect(p.fd)
	if err := checkMode(p); err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errnoOf(err))
	}
	switch {
	case st.Mode().IsRegular():
		err = p.asRegular(st.Size(), o.SectorSize)
	case isDisk(st.Mode()):
		err = p.asDevice()
	default:
		err = fmt.Errorf("%s: %w", path, errKind)
	}
	if err == nil && o.Direct {
		err = p.bypassCache(again)
	}
	if err != nil {
		return nil, err
	}
	if !o.NoLock {
		if err := lock(p, o); err != nil {
			return nil, err
		}
	}
	sparse := p.kind == KindRegular && holesAreTrusted(p.fd)
	if p.direct && o.Rings != nil {
		p.starting.ring = o.Rings.take()
		if sparse {
			return startingSparse{sparseFile{p}, starter{p}}, nil
		}
		return startingFile{p, starter{p}}, nil
	}
	if sparse {
		return sparseFile{p}, nil
	}
	return p, nil
}

// findProvider returns the path that name means.
func findProvider(name string) (string, error) {
	if name == "" {
		return "", errors.New("provider without a name")
	}
	if scheme := Name(name).Scheme(); scheme != "" {
		return "", unknownScheme(name, scheme, nil)
	}
	path := filepath.Clean(name)
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) || filepath.IsAbs(path) {
		return path, nil // whatever is wrong, opening it will tell
	}
	dev := filepath.Join("/dev", path)
	if _, err := os.Stat(dev); err != nil || !strings.HasPrefix(dev, devPrefix) {
		return "", fmt.Errorf("%s: no such file, and no such provider in /dev: %w", name, syscall.ENOENT)
	}
	return dev, nil
}

// openPath opens what is at path without ever waiting in open.
func openPath(path string, o OpenOptions) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errnoOf(err))
	}
	if !st.Mode().IsRegular() && !isDisk(st.Mode()) {
		return nil, fmt.Errorf("%s: %w", path, errKind)
	}
	mode := unix.O_RDWR
	if o.ReadOnly && !o.KeepWritersOff {
		mode = unix.O_RDONLY
	}
	fd, err := openFD(path, mode|exclusiveFlag(st.Mode(), o))
	if o.ReadOnly && mode == unix.O_RDWR && (err == unix.EROFS || err == unix.EACCES) {
		fd, err = openFD(path, unix.O_RDONLY|exclusiveFlag(st.Mode(), o))
	}
	switch {
	case err == nil:
		f := os.NewFile(uintptr(fd), path)
		if !o.ReadOnly && isDisk(st.Mode()) {
			if err := refuseSwap(path, fd); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		return f, nil
	case isHeld(err, st.Mode()):
		return nil, fmt.Errorf("%s: %w (%w): mounted, or part of another volume", path, ErrLocked, err)
	}
	return nil, fmt.Errorf("%s: open: %w", path, err)
}

// refuseSwap keeps what the kernel swaps to from being written to.
func refuseSwap(path string, fd int) error {
	swap, err := isSwap(fd)
	if err != nil {
		return fmt.Errorf("%s: is it swap? %w", path, err)
	}
	if swap {
		return fmt.Errorf("%s: %w: %w; `swapoff %s` first", path, ErrLocked, ErrSwap, path)
	}
	return nil
}

func openFD(path string, flags int) (fd int, err error) {
	err = ignoringEINTR(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// checkMode refuses a descriptor that cannot do what the provider promises.
func checkMode(p *file) error {
	flags, err := unix.FcntlInt(uintptr(p.fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	mode := flags & unix.O_ACCMODE
	if mode == unix.O_WRONLY || mode == unix.O_RDONLY && !p.readOnly {
		return fmt.Errorf("%s: descriptor is not open for reading and writing: %w", p.name, syscall.EBADF)
	}
	if err := byCaches(p.fd, flags); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

func lock(p *file, o OpenOptions) error {
	how := unix.LOCK_EX
	if o.ReadOnly {
		how = unix.LOCK_SH
	}
	err := ignoringEINTR(func() error { return unix.Flock(p.fd, how|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return fmt.Errorf("%s: %w", p.name, ErrLocked)
	}
	if err != nil {
		return fmt.Errorf("%s: lock: %w", p.name, err)
	}
	return nil
}

// asRegular makes p a regular file of size bytes.
func (p *file) asRegular(size int64, sector int) error {
	p.kind, p.medium, p.size = KindRegular, regularMedium(p.fd), size
	if sector == 0 {
		sector = SectorByMetadata(p.f, size)
	}
	if sector < defaultSector || sector > maxSector || sector&(sector-1) != 0 {
		return fmt.Errorf("%s: sector size %d: must be a power of two from %d to %d",
			p.name, sector, defaultSector, maxSector)
	}
	p.sector = int64(sector)
	if size == 0 {
		return fmt.Errorf("%s: file is empty: no component is (`truncate -s SIZE` gives one that is to be labelled its size)", p.name)
	}
	if size%p.sector != 0 {
		return fmt.Errorf("%s: size %d is not a multiple of the sector size %d: no component is like that (is it the right file?)",
			p.name, size, sector)
	}
	return nil
}

// SectorByMetadata is the sector size of what does not say its own: that whose last
// sector, in the size bytes of r, holds VIRSTOR metadata (512 or 4096), else 512.
func SectorByMetadata(r io.ReaderAt, size int64) int {
	var magic [len(ondisk.Magic)]byte
	for _, sector := range []int{512, 4096} {
		if size%int64(sector) != 0 || size < int64(sector) {
			continue
		}
		_, err := r.ReadAt(magic[:], size-int64(sector))
		if err == nil && bytes.Equal(magic[:], []byte(ondisk.Magic)) {
			return sector
		}
	}
	return defaultSector
}

// asDevice makes p a disk device.
func (p *file) asDevice() error {
	size, sector, err := deviceSize(p.fd)
	if err != nil {
		return fmt.Errorf("%s: size of the device: %w", p.name, err)
	}
	p.kind, p.medium, p.size, p.sector = KindDevice, disk{}, size, int64(sector)
	p.name = deviceName(p.fd, p.name)
	if size <= 0 || sector <= 0 || size%int64(sector) != 0 {
		return fmt.Errorf("%s: device of %d bytes in sectors of %d: no medium?", p.name, size, sector)
	}
	if sector&(sector-1) != 0 {
		return fmt.Errorf("%s: sector size %d: must be a power of two", p.name, sector)
	}
	if !p.readOnly && writeProtected(p.fd) {
		return fmt.Errorf("%s: device is write-protected: %w", p.name, syscall.EROFS)
	}
	return nil
}
