//go:build !linux

package geomlib

import (
	"fmt"
	"os"
)

// ring: only Linux has them.
type ring struct{}

func newRing(*os.File) (*ring, error) { return nil, fmt.Errorf("io_uring: %w", ErrNotSupported) }

func (*ring) start(begun) bool { return false }
func (*ring) push()            {}
func (*ring) close() error     { return nil }
