package gate

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// DefaultMaxPhys is kern.maxphys of a 64-bit FreeBSD since 13.0, in bytes.
const DefaultMaxPhys = 1 << 20

// NewBuffer maps size bytes of zeros outside of Go's heap, page-aligned, for
// Start and Done: memory that the collector neither moves nor scans. Free it
// with FreeBuffer.
func NewBuffer(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map a buffer of %d bytes: %w", size, err)
	}
	return b, nil
}

// FreeBuffer unmaps what NewBuffer returned, all of it.
func FreeBuffer(b []byte) error {
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("unmap a buffer of %d bytes: %w", len(b), err)
	}
	return nil
}
