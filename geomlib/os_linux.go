package geomlib

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// isDisk: disks are block devices.
func isDisk(mode fs.FileMode) bool {
	return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
}

// exclusiveFlag: O_EXCL without O_CREAT claims a block device, against mounts
// and other holders inside the kernel, which flock does not reach (open(2)).
func exclusiveFlag(mode fs.FileMode, o OpenOptions) int {
	if isDisk(mode) && !o.NoLock && (!o.ReadOnly || o.KeepWritersOff) {
		return unix.O_EXCL
	}
	return 0
}

func isHeld(err error, mode fs.FileMode) bool {
	return isDisk(mode) && err == unix.EBUSY
}

// isSwap: the kernel claims what it swaps to, so opening it has failed.
func isSwap(int) (bool, error) { return false, nil }

// holesAreTrusted: on these file systems a range that SEEK_DATA skips reads as
// zeros, whatever was written and punched just before.
func holesAreTrusted(fd int) bool {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, // ext2 and ext3 too
		unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

func regularMedium(fd int) medium {
	return regular{zeroes: holesAreTrusted(fd), keep: preallocated(fd)}
}

// writePiece is how much one system call writes, bytes. The page cache keeps
// what it is given in one call in folios as large as that, and ext4 goes through
// all blocks of a folio for each write into it (Linux 6.18): 4 KiB writes here
// and there after a file was written 1 MiB at a time are three times as fast
// when it was written in such pieces, and sequential writes no slower.
const writePiece = 256 << 10

// regular is a regular file.
type regular struct {
	zeroes bool // what is punched may be relied on to be zeros
	keep   bool // preallocated: its blocks stay
}

func (regular) buffered() bool      { return true }
func (r regular) keepsBlocks() bool { return r.keep }
func (regular) flush(fd int) error  { return unix.Fdatasync(fd) }

func (r regular) remove(fd int, off, length int64) error {
	if r.keep {
		return ErrNotSupported
	}
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	return notSupported(unix.Fallocate(fd, punch, off, length))
}

func (r regular) zero(fd int, off, length int64) error {
	if !r.zeroes {
		return ErrNotSupported
	}
	if r.keep {
		const zeroRange = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
		return notSupported(unix.Fallocate(fd, zeroRange, off, length))
	}
	return r.remove(fd, off, length)
}

// share: FICLONERANGE (ioctl_ficlonerange(2)) shares whole blocks of the file system, of
// files on the same one, where that can: Btrfs, XFS, and some others.
func (regular) share(fd int, off int64, src int, from, length int64) error {
	err := unix.IoctlFileCloneRange(fd, &unix.FileCloneRange{
		Src_fd: int64(src), Src_offset: uint64(from), Src_length: uint64(length), Dest_offset: uint64(off),
	})
	if err == unix.EXDEV || err == unix.EINVAL {
		return ErrNotSupported
	}
	return notSupported(err)
}

// drop: DONTNEED takes the pages that are clean out of the page cache, and calls
// those clean that a failed fsync(2) gave up (posix_fadvise(2)). Memory is all that
// a tmpfs has, and it keeps it.
func (regular) drop(fd int) error { return dropPages(fd) }

func dropPages(fd int) error {
	return notSupported(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
}

// disk is a block device. Its writes go through the page cache.
type disk struct{}

func (disk) buffered() bool     { return true }
func (disk) keepsBlocks() bool  { return false }
func (disk) flush(fd int) error { return unix.Fdatasync(fd) }

func (disk) share(int, int64, int, int64, int64) error { return ErrNotSupported }

func (disk) remove(fd int, off, length int64) error {
	return rangeIoctl(fd, unix.BLKDISCARD, off, length)
}

func (disk) zero(fd int, off, length int64) error {
	return rangeIoctl(fd, unix.BLKZEROOUT, off, length)
}

// drop: BLKFLSBUF (linux/fs.h) drops what the buffer cache holds of the device.
// It is for administrators; others let go of the pages, which is the same cache.
func (disk) drop(fd int) error {
	err := notSupported(ioctl(fd, unix.BLKFLSBUF, nil))
	if err == unix.EACCES || err == unix.EPERM || err == ErrNotSupported {
		return dropPages(fd)
	}
	return err
}

// rangeIoctl gives a request of linux/fs.h its uint64_t range[2].
func rangeIoctl(fd int, request uintptr, off, length int64) error {
	r := [2]uint64{uint64(off), uint64(length)}
	return notSupported(ioctl(fd, request, unsafe.Pointer(&r)))
}

func deviceSize(fd int) (size int64, sector int, err error) {
	var bytes uint64
	if err := ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&bytes)); err != nil {
		return 0, 0, err
	}
	var logical int32 // BLKSSZGET stores a C int
	if err := ioctl(fd, unix.BLKSSZGET, unsafe.Pointer(&logical)); err != nil {
		return 0, 0, err
	}
	return int64(bytes), int(logical), nil
}

// writeProtected: an open for writing may succeed all the same.
func writeProtected(fd int) bool {
	var ro int32 // BLKROGET stores a C int
	return ioctl(fd, unix.BLKROGET, unsafe.Pointer(&ro)) == nil && ro != 0
}

// networks are the file systems whose files are of another host, or may be, which has a
// cache in between (statfs(2)).
var networks = []uint32{unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC,
	unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC}

// pastCaches has all that is read and written go past the page cache (O_DIRECT).
func pastCaches(fd int, kind Kind) error {
	if kind == KindRegular {
		var st unix.Statfs_t
		if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
			return err
		}
		if slices.Contains(networks, uint32(st.Type)) {
			return errors.New("a file on a network file system; take a device, or a URI of NBD")
		}
	}
	if err := setDirect(fd); err != nil {
		return fmt.Errorf("O_DIRECT: %w", err)
	}
	return nil
}

// byCaches takes that back, of a descriptor that another process had so. flags are the
// descriptor's.
func byCaches(fd, flags int) error {
	if flags&unix.O_DIRECT == 0 {
		return nil
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
	return err
}

func deviceName(_ int, path string) string { return path }
