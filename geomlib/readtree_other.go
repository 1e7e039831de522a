//go:build !freebsd

package geomlib

// KernelTree fails with ErrNotSupported: only FreeBSD has GEOM.
func KernelTree() ([]byte, error) { return nil, ErrNotSupported }
