package geomlib

import "golang.org/x/sys/unix"

// KernelTree is kern.geom.confxml. It waits until GEOM's event queue is empty, and
// nothing ends that. The tree may have grown between asking for its size and for itself: ENOMEM.
func KernelTree() ([]byte, error) {
	const tries = 16
	for try := 1; ; try++ {
		b, err := unix.SysctlRaw("kern.geom.confxml")
		if err == nil || try == tries || err != unix.ENOMEM && err != unix.EINTR {
			return b, err
		}
	}
}
