package gatetest

import (
	"bytes"
	"errors"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// The numbers, sizes and offsets below are those of the C headers on an LP64
// machine, written out so that they check package gate's.
const (
	cmdCreate  = 0xca306d00
	cmdModify  = 0xc9206d01
	cmdDestroy = 0xc10c6d02
	cmdCancel  = 0xc1106d03
	cmdStart   = 0xc0386d04
	cmdDone    = 0xc0386d05

	unitByName = -2
)

// Open opens the control device once more. A handle that is closed or
// forgotten leaves units and requests as they are.
func (k *Kernel) Open() *gate.Gate {
	g, err := gate.New(k.Device())
	if err != nil {
		panic(err) // only a Kernel made with another Version answers that
	}
	return g
}

// Device is a descriptor of the control device, for gate.New.
func (k *Kernel) Device() gate.Device { return &device{k: k} }

type device struct {
	k      *Kernel
	closed atomic.Bool
}

func (d *device) File() (*os.File, error) {
	return nil, errors.New("an in-process geom_gate has no descriptor to pass on")
}

func (d *device) Close() error {
	if d.closed.Swap(true) {
		return os.ErrClosed
	}
	return nil
}

func (d *device) Ioctl(cmd gate.Command, arg unsafe.Pointer) gate.Errno {
	return d.ioctl(cmd, arg, nil)
}

func (d *device) NewThread() gate.Thread { return &thread{d: d} }

// thread is a caller whose START can be interrupted.
type thread struct {
	d *device
	s sleeper
	u atomic.Pointer[unit] // in START of

	entered atomic.Bool
}

// Enter panics where the real one would lose count of its threads.
func (t *thread) Enter() {
	if t.entered.Swap(true) {
		panic("gatetest: Enter without Leave before it")
	}
}

func (t *thread) Leave() {
	if !t.entered.Swap(false) {
		panic("gatetest: Leave without Enter before it")
	}
}

func (t *thread) Ioctl(cmd gate.Command, arg unsafe.Pointer) gate.Errno {
	if !t.entered.Load() {
		panic("gatetest: Ioctl of a thread that nobody entered")
	}
	if cmd == cmdStart {
		u := t.d.k.hold(int(field[int32](arg, 4)))
		if u != nil {
			t.u.Store(u)
			defer func() {
				t.u.Store(nil)
				t.d.k.release(u)
			}()
		}
	}
	return t.d.ioctl(cmd, arg, &t.s)
}

func (t *thread) Interrupt() {
	if u := t.u.Load(); u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		t.s.signalledLocked(u)
	}
}

// field reads what the caller passed at a byte offset.
func field[T int32 | uint32 | int64 | uint64](arg unsafe.Pointer, off uintptr) T {
	return *(*T)(unsafe.Add(arg, off))
}

func setField[T int32 | uint32 | int64 | uint64](arg unsafe.Pointer, off uintptr, v T) {
	*(*T)(unsafe.Add(arg, off)) = v
}

// text is a C string in an array of n bytes.
func text(arg unsafe.Pointer, off uintptr, n int) string {
	b := unsafe.Slice((*byte)(unsafe.Add(arg, off)), n)
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

func (d *device) ioctl(cmd gate.Command, arg unsafe.Pointer, s *sleeper) gate.Errno {
	if d.closed.Load() {
		return gate.EBADF
	}
	k := d.k
	switch cmd {
	case cmdCreate, cmdModify, cmdDestroy, cmdCancel, cmdStart, cmdDone:
	default:
		return gate.ENOTTY
	}
	if field[uint32](arg, 0) != k.opts.Version {
		return gate.EINVAL
	}
	switch cmd {
	case cmdCreate:
		return k.ioctlCreate(arg)
	case cmdModify:
		return k.ioctlModify(arg)
	case cmdDestroy:
		u := k.find(field[int32](arg, 4), func() string { return text(arg, 12, 255) })
		if u == nil {
			return gate.ENXIO
		}
		errno := k.destroy(u, field[int32](arg, 8) != 0)
		if errno == 0 {
			k.events.waitIdle()
		}
		return errno
	case cmdCancel:
		u := k.find(field[int32](arg, 4), func() string { return text(arg, 16, 255) })
		if u == nil {
			return gate.ENXIO
		}
		defer k.release(u)
		u.cancel(field[uint64](arg, 8))
		setField(arg, 4, int32(u.number))
		return 0
	case cmdStart:
		return k.ioctlStart(arg, s)
	}
	return k.ioctlDone(arg)
}

func (k *Kernel) find(number int32, name func() string) *unit {
	if number == unitByName {
		return k.holdName(name())
	}
	return k.hold(int(number))
}

func (k *Kernel) ioctlCreate(arg unsafe.Pointer) gate.Errno {
	var (
		mediaSize  = field[int64](arg, 8)
		sectorSize = field[uint32](arg, 16)
		flags      = gate.Flags(field[uint32](arg, 20))
		maxCount   = field[uint32](arg, 24)
		timeout    = field[uint32](arg, 28)
		name       = text(arg, 32, 255)
		number     = field[int32](arg, 2600)
	)
	switch {
	case mediaSize <= 0,
		sectorSize == 0 || sectorSize&(sectorSize-1) != 0,
		mediaSize%int64(sectorSize) != 0,
		flags&(gate.ReadOnly|gate.WriteOnly) == gate.ReadOnly|gate.WriteOnly,
		number < unitByName,
		number == unitByName && name == "",
		text(arg, 2335, 255) != "": // there is no other provider to read from
		return gate.EINVAL
	}
	u := &unit{
		k:          k,
		name:       name,
		flags:      flags & (gate.ReadOnly | gate.WriteOnly),
		limit:      int(min(maxCount, maxQueueSize)),
		timeout:    time.Duration(timeout) * time.Second,
		mediaSize:  mediaSize,
		sectorSize: int(sectorSize),
		info:       text(arg, 287, 2047),
		seq:        1,
	}
	u.wakeup.L = &u.mu
	if errno := k.create(u, int(number), number == unitByName); errno != 0 {
		return errno
	}
	setField(arg, 2600, int32(u.number))
	return 0
}

func (k *Kernel) ioctlModify(arg unsafe.Pointer) gate.Errno {
	u := k.hold(int(field[int32](arg, 4)))
	if u == nil {
		return gate.ENXIO
	}
	defer k.release(u)
	what := field[uint32](arg, 8)
	if what&1 != 0 { // GG_MODIFY_MEDIASIZE, which ends the command
		size := field[int64](arg, 16)
		if size <= 0 || size%int64(u.sectorSize) != 0 {
			return gate.EINVAL
		}
		k.events.post(func() {
			k.mu.Lock()
			u.mediaSize = size
			k.mu.Unlock()
		})
		k.events.waitIdle()
		return 0
	}
	if what&2 != 0 { // GG_MODIFY_INFO
		k.mu.Lock()
		u.info = text(arg, 24, 2047)
		k.mu.Unlock()
	}
	if what&(4|8) != 0 { // there is no other provider to read from
		return gate.EINVAL
	}
	return 0
}

func (k *Kernel) ioctlStart(arg unsafe.Pointer, s *sleeper) gate.Errno {
	u := k.hold(int(field[int32](arg, 4)))
	if u == nil {
		return gate.ENXIO
	}
	defer k.release(u)
	if s == nil {
		s = new(sleeper)
	}
	room := field[int64](arg, 32)
	c, errno, ctlError := u.start(s, func(c *Call) bool {
		needsRoom := c.Cmd == gate.Write || c.Cmd == gate.Delete && k.opts.DeleteNeedsRoom
		return !needsRoom || c.Length <= room
	})
	if errno != 0 {
		return errno
	}
	if c != nil {
		setField(arg, 16, uint32(c.Cmd))
		setField(arg, 32, c.Length)
	}
	if ctlError != 0 {
		setField(arg, 48, int32(ctlError))
		return 0
	}
	if c.Cmd == gate.Write {
		if errno := copyOut(arg, c); errno != 0 {
			u.untake(c)
			return errno
		}
	}
	setField(arg, 8, c.seq)
	setField(arg, 24, c.Offset)
	return 0
}

// copyOut is copyout(9), for which address 0 is no memory.
func copyOut(arg unsafe.Pointer, c *Call) gate.Errno {
	data := *(*unsafe.Pointer)(unsafe.Add(arg, 40))
	if data == nil {
		return gate.EFAULT
	}
	copy(unsafe.Slice((*byte)(data), c.Length), c.Data)
	return 0
}

func (k *Kernel) ioctlDone(arg unsafe.Pointer) gate.Errno {
	u := k.hold(int(field[int32](arg, 4)))
	if u == nil {
		return gate.ENOENT
	}
	defer k.release(u)
	ctlError := gate.Errno(field[int32](arg, 48))
	c := u.answer(field[uint64](arg, 8), ctlError)
	if c == nil {
		return 0
	}
	var errno gate.Errno
	if c.Cmd == gate.Read && ctlError == 0 {
		if data := *(*unsafe.Pointer)(unsafe.Add(arg, 40)); data != nil {
			copy(c.Data, unsafe.Slice((*byte)(data), c.Length))
		} else {
			errno, ctlError = gate.EFAULT, gate.EFAULT
		}
	}
	c.deliver(ctlError)
	return errno
}
