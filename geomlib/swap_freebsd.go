package geomlib

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// struct xswdev of 64-bit FreeBSD since 12 (sys/vm/vm_param.h).
const (
	xswdevSize    = 32
	xswdevVersion = 2
	xswdevDev     = 8
)

// isSwap reports whether the kernel swaps to the open device. It opens such a
// device without claiming it for itself, so that nothing else tells. The answer
// does not wait for GEOM.
func isSwap(fd int) (bool, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return false, err
	}
	for n := 0; ; n++ {
		b, err := unix.SysctlRaw("vm.swap_info", n)
		if err == unix.ENOENT {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("sysctl vm.swap_info.%d: %w", n, err)
		}
		if len(b) != xswdevSize || binary.NativeEndian.Uint32(b) != xswdevVersion {
			return false, nil // another kernel's, of which nothing is known
		}
		if binary.NativeEndian.Uint64(b[xswdevDev:]) == st.Rdev {
			return true, nil
		}
	}
}
