package geomlib

import (
	"golang.org/x/sys/unix"
)

// bypassCache sets O_DIRECT, and returns the unit in which that reads and writes, bytes.
// again: it was set when p was passed on. Whoever did that has asked the file system, which a
// worker that is confined may not.
func bypassCache(p *file, again bool) (unit int64, err error) {
	unit = p.sector
	if p.kind == KindRegular && !again {
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
	if err == nil && again {
		err = readsSectors(p)
	}
	if err == unix.EINVAL {
		err = ErrNotSupported
	}
	return unit, err
}

// readsSectors makes sure that what is read past the cache is so in units of a sector.
func readsSectors(p *file) error {
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	return ignoringEINTR(func() error { _, err := unix.Pread(p.fd, (*buf)[:p.sector], p.size-p.sector); return err })
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
