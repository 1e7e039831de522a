package gate

import (
	"os"
	"unsafe"
)

// Device is the control device: /dev/ggctl, or its twin in package gatetest.
// Its methods may be called by many goroutines at once.
type Device interface {
	// Ioctl performs cmd. arg points to cmd.Size() bytes laid out as the C
	// structure is. It answers 0 or what ioctl(2) would; with an error the
	// structure is unchanged.
	Ioctl(cmd Command, arg unsafe.Pointer) Errno
	// NewThread makes a caller of Ioctl whose sleep can be interrupted.
	NewThread() Thread
	// File is the open descriptor, to be passed to another process. It still
	// belongs to the Device. An error says why there is none.
	File() (*os.File, error)
	// Close makes later calls answer EBADF and releases the descriptor once
	// no call is under way. It wakes nobody.
	Close() error
}

// Thread is a caller of Ioctl whose sleep another goroutine can end. Enter,
// Ioctl and Leave are for one goroutine at a time.
type Thread interface {
	// Enter binds the goroutine to its OS thread until it calls Leave. Ioctl is
	// called in between.
	Enter()
	Leave()
	Ioctl(cmd Command, arg unsafe.Pointer) Errno
	// Interrupt sends the thread that is in Ioctl a signal: the sleep of a
	// Start ends with EINTR (ECANCELED on older kernels). A thread that is
	// not asleep in the kernel, or not yet, does not notice; so whoever
	// wants the thread back repeats it until he has it.
	Interrupt()
}
