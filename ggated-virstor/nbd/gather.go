//go:build linux || freebsd

package nbd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const canGather = true

// gather is what sendmsg(2) sends in one call without blocking.
type gather struct {
	iov  [maxVec]unix.Iovec
	r, w int // iov[r:w] is to be sent
	msg  unix.Msghdr
}

func (g *gather) set(vec [][]byte) {
	g.r, g.w = 0, 0
	for _, b := range vec {
		if len(b) > 0 {
			g.iov[g.w].Base = &b[0]
			g.iov[g.w].SetLen(len(b))
			g.w++
		}
	}
}

// reset keeps no memory of others alive.
func (g *gather) reset() {
	clear(g.iov[:g.w])
	g.r, g.w = 0, 0
	g.msg.Iov = nil
}

func (g *gather) left() bool { return g.r < g.w }

func (g *gather) send(fd uintptr) (int, error) {
	g.msg.Iov = &g.iov[g.r]
	g.msg.SetIovlen(g.w - g.r)
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&g.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno != 0 {
		return 0, errno
	}
	g.sent(int(n))
	return int(n), nil
}

// sent takes n bytes off.
func (g *gather) sent(n int) {
	for n > 0 {
		first := &g.iov[g.r]
		have := int(first.Len)
		if n < have {
			first.Base = (*byte)(unsafe.Add(unsafe.Pointer(first.Base), n))
			first.SetLen(have - n)
			return
		}
		n -= have
		g.r++
	}
}
