package supervisor

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
)

// systemMounts asks the kernel, without asking the file systems themselves.
type systemMounts struct{}

func (systemMounts) on(devices []string) ([]string, error) {
	n, err := unix.Getfsstat(nil, unix.MNT_NOWAIT)
	if err != nil {
		return nil, err
	}
	buf := make([]unix.Statfs_t, n+16)
	if n, err = unix.Getfsstat(buf, unix.MNT_NOWAIT); err != nil {
		return nil, err
	}
	var paths []string
	for _, st := range buf[:n] {
		from := geomlib.Name(cString(st.Mntfromname[:])).Bare()
		if slices.Contains(devices, from) {
			paths = append(paths, cString(st.Mntonname[:]))
		}
	}
	slices.Reverse(paths)
	return paths, nil
}

// unmount does not begin, unless by force, when a file is open: if the device
// went away while it waited, the kernel would free the file system below the
// file and panic (ffs_unmount of FreeBSD 13 to 15, ffs_fsfail_cleanup).
func (systemMounts) unmount(path string, force bool) error {
	flags := unix.MNT_NONBUSY
	if force {
		flags = unix.MNT_FORCE
	}
	return unix.Unmount(path, flags)
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
