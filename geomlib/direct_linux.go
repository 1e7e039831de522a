package geomlib

import (
	"golang.org/x/sys/unix"
)

// bypassCache sets O_DIRECT, and returns the unit in which that reads and writes, bytes.
func bypassCache(p *file) (unit int64, err error) {
	unit = p.sector
	if p.kind == KindRegular {
		var st unix.Statx_t
		err := ignoringEINTR(func() error { return unix.Statx(p.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) })
		if err != nil {
			return 0, err
		}
		if st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_offset_align == 0 {
			return 0, ErrNotSupported // by the file system
		}
		unit = int64(st.Dio_offset_align)
	}
	err = setDirect(p.fd)
	if err == unix.EINVAL {
		err = ErrNotSupported
	}
	return unit, err
}

func setDirect(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_DIRECT)
	}
	return err
}

// isDirect reports whether a descriptor is open past the cache, be it by another process.
func isDirect(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_DIRECT != 0
}
