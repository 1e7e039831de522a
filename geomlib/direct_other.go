//go:build !linux

package geomlib

// bypassCache: FreeBSD has no cache before a disk (geom_dev), and files are not promised
// to be read and written past theirs (open(2), O_DIRECT).
func bypassCache(p *file, _ bool) (unit int64, err error) {
	if p.kind == KindDevice {
		return p.sector, nil
	}
	return 0, ErrNotSupported
}

func isDirect(int) bool { return false }
