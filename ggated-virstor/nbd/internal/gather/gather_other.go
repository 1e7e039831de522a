//go:build !linux && !freebsd

package gather

import "golang.org/x/sys/unix"

// Can is false: here one waits in net.Conn's Write.
const Can = false

// Message does nothing.
type Message struct{}

// Set does nothing.
func (*Message) Set([][]byte) {}

// Reset does nothing.
func (*Message) Reset() {}

// Left is false.
func (*Message) Left() bool { return false }

// Send fails.
func (*Message) Send(uintptr) (int, error) { return 0, unix.ENOTSUP }
