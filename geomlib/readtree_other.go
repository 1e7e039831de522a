//go:build !freebsd

package geomlib

// kernelTree: only FreeBSD has GEOM.
func kernelTree() ([]byte, error) { return nil, ErrNotSupported }
