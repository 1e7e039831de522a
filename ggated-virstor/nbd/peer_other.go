//go:build !linux && !freebsd

package nbd

import "time"

// hungUp does not know here; the peer's end is noticed when its input is read.
func hungUp(uintptr) bool { return false }

// inputWaits does not know here.
func inputWaits(uintptr) bool { return true }

// awaitInput leaves it to the runtime's poller.
func awaitInput(uintptr, time.Duration) {}

// awaitRoom is not needed, see gather_other.go.
func awaitRoom(uintptr, time.Duration) {}
