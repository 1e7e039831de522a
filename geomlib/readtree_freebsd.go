package geomlib

import "golang.org/x/sys/unix"

// kernelTree asks the kernel. It waits until GEOM's event queue is empty. The
// tree may have grown between asking for its size and for itself: ENOMEM.
func kernelTree() ([]byte, error) {
	const tries = 16
	for try := 1; ; try++ {
		b, err := unix.SysctlRaw("kern.geom.confxml")
		if err == nil || try == tries || err != unix.ENOMEM && err != unix.EINTR {
			return b, err
		}
	}
}
