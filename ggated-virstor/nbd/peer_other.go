//go:build !linux && !freebsd

package nbd

// hungUp does not know here; the peer's end is noticed when its input is read.
func hungUp(uintptr) bool { return false }

// inputWaits does not know here.
func inputWaits(uintptr) bool { return true }
