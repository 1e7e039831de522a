package main

import (
	"context"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
)

func newKernel() kernel { return freebsdKernel{} }

// freebsdKernel is kldload(2) and its kin.
type freebsdKernel struct{}

func (freebsdKernel) load() error {
	// The class may be compiled in, or loaded as a file: both are a module
	// named g_gate (sys/geom/gate/g_gate.c).
	if _, err := kldCall(unix.SYS_MODFIND, "g_gate"); err == nil {
		return nil
	}
	_, err := kldCall(unix.SYS_KLDLOAD, module)
	if err == unix.EEXIST { // somebody else just did
		return nil
	}
	return err
}

func (freebsdKernel) find() (int, error) { return kldCall(unix.SYS_KLDFIND, module) }

func (freebsdKernel) unload(id int) error {
	_, _, errno := unix.Syscall(unix.SYS_KLDUNLOAD, uintptr(id), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// kldCall makes a system call whose one argument is a name.
func kldCall(number uintptr, name string) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	id, _, errno := unix.Syscall(number, uintptr(unsafe.Pointer(p)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(id), nil
}

func (freebsdKernel) tree(ctx context.Context) (*geomlib.Tree, error) { return geomlib.ReadTree(ctx) }
