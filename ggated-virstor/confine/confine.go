// Package confine has a process give up what it does not need, for good: what
// takes the process over later cannot get it back. It is for a process that has
// all its descriptors and is handed others; it opens nothing by name, connects to
// nobody, and starts no program.
package confine

import "errors"

// System is what the operating system can do.
type System interface {
	// Capabilities gives up all privileges that could be had again, also those of
	// programs that would be started. It is called before the process becomes
	// another user, if it does.
	Capabilities() error
	// Calls gives up the system calls that this package's process has no use for.
	// From then on they fail with EPERM. ErrUnsupported: there is no such thing
	// here. With rings, what geomlib.Rings do stays possible: those that were made, and
	// not to make another.
	Calls(rings bool) error
	// CapabilityMode enters FreeBSD's capability mode (capsicum(4)) with all threads:
	// from then on calls that name something fail with ECAPMODE. ErrUnsupported:
	// there is no such thing here.
	CapabilityMode() error
}

// ErrUnsupported: the system has nothing of that kind, or this program does not use
// it.
var ErrUnsupported = errors.New("not confined on this system")

// OS is the operating system.
func OS() System { return system{} }
