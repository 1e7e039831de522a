//go:build !freebsd

package gate

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Open opens the kernel's control device, which only FreeBSD has; elsewhere it
// fails with errors.ErrUnsupported.
func Open() (*Gate, error) {
	return nil, fmt.Errorf("geom_gate on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// FromFile makes a Gate of a descriptor of the control device, which only
// FreeBSD has; elsewhere it fails with errors.ErrUnsupported.
func FromFile(*os.File) (*Gate, error) {
	return nil, fmt.Errorf("geom_gate on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// MaxPhys is the length in bytes of the longest request that drivers and file
// systems normally make.
func MaxPhys() int { return DefaultMaxPhys }
