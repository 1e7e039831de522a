//go:build !linux && !freebsd

package nbd

import "golang.org/x/sys/unix"

// canGather is false: here the reader waits for its client in net.Conn's Write.
const canGather = false

type gather struct{}

func (gather) set([][]byte)              {}
func (gather) reset()                    {}
func (gather) left() bool                { return false }
func (gather) send(uintptr) (int, error) { return 0, unix.ENOTSUP }
