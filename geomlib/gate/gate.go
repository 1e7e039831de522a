package gate

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"unsafe"
)

// UnitAuto asks Create for the lowest free unit.
const UnitAuto = -1

// ErrVersion means that the kernel's geom_gate speaks another version of the
// interface.
var ErrVersion = errors.New("the kernel's geom_gate does not speak version 3 of its interface")

// Gate is an open control device. Its methods may be called by many goroutines
// at once.
type Gate struct {
	dev Device
}

// New uses dev, which it then owns. It fails with ErrVersion, or with what the
// device answers when it is not a control device.
func New(dev Device) (*Gate, error) {
	g := &Gate{dev: dev}
	if err := g.checkVersion(); err != nil {
		return nil, err
	}
	return g, nil
}

// Close releases the descriptor. Units stay. A Start that sleeps goes on
// sleeping and keeps the descriptor until it wakes.
func (g *Gate) Close() error { return g.dev.Close() }

// File is the descriptor, for passing it to another process, which makes a Gate
// of it with FromFile. It belongs to g.
func (g *Gate) File() (*os.File, error) { return g.dev.File() }

// checkVersion asks for a unit that no kernel has: the version is looked at
// before the unit.
func (g *Gate) checkVersion() error {
	c := ctlCancel{version: Version, unit: math.MaxInt32}
	switch e := g.dev.Ioctl(CmdCancel, unsafe.Pointer(&c)); e {
	case ENXIO, 0:
		return nil
	case EINVAL:
		return ErrVersion
	default:
		return fmt.Errorf("ask the control device for its version: %w", e)
	}
}

// OpError says which command failed on which unit.
type OpError struct {
	Cmd  Command
	Unit int    // or -1
	Name string // when the unit was given by name
	Err  error  // an Errno, or what is wrong with an argument
}

// Error reads "START unit 3: no such unit".
func (e *OpError) Error() string {
	switch {
	case e.Name != "":
		return fmt.Sprintf("%v %s: %v", e.Cmd, e.Name, e.Err)
	case e.Unit < 0:
		return fmt.Sprintf("%v: %v", e.Cmd, e.Err)
	}
	return fmt.Sprintf("%v unit %d: %v", e.Cmd, e.Unit, e.Err)
}

// Unwrap returns Err.
func (e *OpError) Unwrap() error { return e.Err }

// CreateOptions describe a new unit. There is no timeout and no limit of the
// queue: the kernel's timeout fails every request that is older than five
// seconds, and a full queue answers ENOMEM, which throttles all of GEOM.
type CreateOptions struct {
	// Name is the name below /dev ("virstor/mydata"); empty means ggateN.
	// It must be free: a name that another class has is not refused.
	Name string
	// Unit is the N wanted, or UnitAuto. It is not looked at with a Name.
	Unit       int
	MediaSize  int64 // bytes, a multiple of SectorSize
	SectorSize int   // bytes, a power of 2
	Flags      Flags
	Info       string // shown in kern.geom.confxml; up to 2047 bytes
}

// Create makes a unit and returns its number. The kernel begins to taste the
// device at once, and whatever waits for GEOM's events waits until the reads
// of that are answered. ErrExists: the unit or the name is taken.
func (g *Gate) Create(o CreateOptions) (unit int, err error) {
	fail := func(err error) (int, error) {
		e := &OpError{Cmd: CmdCreate, Unit: o.Unit, Name: o.Name, Err: err}
		return -1, e
	}
	c := &ctlCreate{
		version:   Version,
		mediaSize: o.MediaSize,
		flags:     o.Flags,
		unit:      unitByName,
	}
	switch {
	case o.SectorSize <= 0 || o.SectorSize&(o.SectorSize-1) != 0 || o.SectorSize > math.MaxInt32:
		return fail(fmt.Errorf("sector size %d is not a power of 2", o.SectorSize))
	case o.MediaSize <= 0 || o.MediaSize%int64(o.SectorSize) != 0:
		return fail(fmt.Errorf("media size %d is not a multiple of the sector size %d", o.MediaSize, o.SectorSize))
	case o.Flags&^(ReadOnly|WriteOnly) != 0 || o.Flags == ReadOnly|WriteOnly:
		return fail(fmt.Errorf("flags %#x are not read-only, write-only or none", uint32(o.Flags)))
	}
	c.sectorSize = uint32(o.SectorSize)
	if o.Name == "" {
		if o.Unit < UnitAuto || o.Unit > math.MaxInt32 {
			return fail(errors.New("not a unit number"))
		}
		c.unit = int32(o.Unit)
	} else if err := putName(&c.name, o.Name); err != nil {
		return fail(err)
	}
	if err := putInfo(&c.info, o.Info); err != nil {
		return fail(err)
	}
	if e := g.dev.Ioctl(CmdCreate, unsafe.Pointer(c)); e != 0 {
		return fail(g.explain(e))
	}
	return int(c.unit), nil
}

// Resize changes the size of a unit's device, in bytes. It waits for GEOM's
// events: see the package's comment on threads.
func (g *Gate) Resize(unit int, mediaSize int64) error {
	return g.modify(&ctlModify{version: Version, unit: int32(unit), modify: modifyMediaSize, mediaSize: mediaSize})
}

// SetInfo changes a unit's info string. (The kernel ignores it in a MODIFY
// that also changes the size, so it is a command of its own.)
func (g *Gate) SetInfo(unit int, info string) error {
	m := &ctlModify{version: Version, unit: int32(unit), modify: modifyInfo}
	if err := putInfo(&m.info, info); err != nil {
		return &OpError{Cmd: CmdModify, Unit: unit, Err: err}
	}
	return g.modify(m)
}

func (g *Gate) modify(m *ctlModify) error {
	return g.unitIoctl(CmdModify, int(m.unit), unsafe.Pointer(m))
}

// Destroy removes a unit; what is queued fails with ENXIO. Without force it
// fails with ErrBusy when the device is open, be it only for tasting. It waits
// until no Start of the unit sleeps any more.
func (g *Gate) Destroy(unit int, force bool) error {
	d := &ctlDestroy{version: Version, unit: int32(unit)}
	if force {
		d.force = 1
	}
	return g.unitIoctl(CmdDestroy, unit, unsafe.Pointer(d))
}

// Cancel puts the request seq that was taken but not answered, or with seq 0
// all of them in the order they were taken, back to the head of the in-queue.
// It wakes no sleeping Start: that looks at the queue again when the next
// request comes, so Cancel before Start.
func (g *Gate) Cancel(unit int, seq uint64) error {
	c := &ctlCancel{version: Version, unit: int32(unit), seq: seq}
	return g.unitIoctl(CmdCancel, unit, unsafe.Pointer(c))
}

// UnitByName finds the unit whose device is /dev/name, or fails with ErrGone.
// It does not wait for GEOM's events, as kern.geom.confxml does. It must not
// run beside a Create: until that is done the kernel's look through the names
// meets a unit without one and panics.
func (g *Gate) UnitByName(name string) (int, error) {
	// Cancel answers with the unit; no request has the highest number.
	c := &ctlCancel{version: Version, unit: unitByName, seq: math.MaxUint64}
	err := putName(&c.name, name)
	if err == nil {
		if e := g.dev.Ioctl(CmdCancel, unsafe.Pointer(c)); e != 0 {
			err = g.explain(e)
		}
	}
	if err != nil {
		return -1, &OpError{Cmd: CmdCancel, Unit: unitByName, Name: name, Err: err}
	}
	return int(c.unit), nil
}

// Start waits for the unit's next request and fills io with it. A write's data
// is in buf[:io.Length]. ErrTooLong: see there. ErrGone, ErrCanceled,
// ErrInterrupted: no request was taken.
//
// io must be on the heap, and buf too or outside of Go's memory.
func (g *Gate) Start(unit int, io *IO, buf []byte) error {
	return g.start(g.dev.Ioctl, unit, io, unsafe.Pointer(unsafe.SliceData(buf)), int64(len(buf)))
}

// Receiver is a caller of Start that can be interrupted.
type Receiver struct {
	g    *Gate
	unit int
	t    Thread
}

// NewReceiver makes a Receiver of unit's requests.
func (g *Gate) NewReceiver(unit int) *Receiver {
	return &Receiver{g: g, unit: unit, t: g.dev.NewThread()}
}

// Enter binds the calling goroutine to its OS thread until Leave. It calls Start
// as often as it likes in between; that it stays on one thread is what lets
// Interrupt find it.
func (r *Receiver) Enter() { r.t.Enter() }

// Leave ends what Enter began.
func (r *Receiver) Leave() { r.t.Leave() }

// Start is Gate.Start, for the goroutine that called Enter.
func (r *Receiver) Start(io *IO, buf []byte) error {
	return r.g.start(r.t.Ioctl, r.unit, io, unsafe.Pointer(unsafe.SliceData(buf)), int64(len(buf)))
}

// StartClaiming takes a request of up to length bytes without a buffer. It is
// for a delete, for which older kernels want a buffer that they do not use:
// Start fails with ErrTooLong, and tells the length to claim. A write that comes
// instead is not taken, and ErrBadBuffer returned.
func (r *Receiver) StartClaiming(io *IO, length int64) error {
	return r.g.start(r.t.Ioctl, r.unit, io, nil, length)
}

// Interrupt makes the Start that sleeps return ErrInterrupted or, with older
// kernels, ErrCanceled. When none sleeps at that instant it has no effect:
// repeat it until the goroutine that calls Start says that it is out.
func (r *Receiver) Interrupt() { r.t.Interrupt() }

func (g *Gate) start(ioctl func(Command, unsafe.Pointer) Errno, unit int, io *IO, data unsafe.Pointer, length int64) error {
	if unit < 0 || unit > math.MaxInt32 {
		return &OpError{Cmd: CmdStart, Unit: unit, Err: EINVAL}
	}
	io.version = Version
	io.Unit = int32(unit)
	io.Data, io.Length = data, length
	io.Error = 0
	e := ioctl(CmdStart, unsafe.Pointer(io))
	if e == 0 {
		e = io.Error
	}
	if e != 0 {
		return &OpError{Cmd: CmdStart, Unit: unit, Err: g.explain(e)}
	}
	return nil
}

// Done answers the request in io with io.Error; a read that succeeded with
// io.Length bytes at io.Data. It never sleeps. That the kernel does not know the
// request (any more) is not an error; ErrGone: the unit is gone.
//
// Answering ENOMEM or EAGAIN is refused: the first throttles all of GEOM, the
// second gives the request back to the next Start at once.
func (g *Gate) Done(io *IO) error {
	if io.Error == ENOMEM || io.Error == EAGAIN {
		return &OpError{Cmd: CmdDone, Unit: int(io.Unit),
			Err: fmt.Errorf("request %d must not be answered with error %d", io.Seq, int32(io.Error))}
	}
	switch e := g.dev.Ioctl(CmdDone, unsafe.Pointer(io)); e {
	case 0:
		return nil
	case ENOENT: // what this one command answers for ENXIO
		return &OpError{Cmd: CmdDone, Unit: int(io.Unit), Err: ErrGone}
	default:
		return &OpError{Cmd: CmdDone, Unit: int(io.Unit), Err: g.explain(e)}
	}
}

// unitIoctl refuses negative units, for which the kernel would look for a name
// that some commands do not have (and panic).
func (g *Gate) unitIoctl(cmd Command, unit int, arg unsafe.Pointer) error {
	e := EINVAL
	if unit >= 0 && unit <= math.MaxInt32 {
		e = g.dev.Ioctl(cmd, arg)
	}
	if e != 0 {
		return &OpError{Cmd: cmd, Unit: unit, Err: g.explain(e)}
	}
	return nil
}

// explain names a version mismatch, for which the kernel says EINVAL.
func (g *Gate) explain(e Errno) error {
	if e == EINVAL {
		if err := g.checkVersion(); err != nil {
			return err
		}
	}
	return e
}

func putName(dst *[nameSize]byte, name string) error {
	switch {
	case len(name) >= nameSize:
		return fmt.Errorf("name of %d bytes: at most %d fit", len(name), nameSize-1)
	case strings.HasPrefix(name, "/"):
		return errors.New("a device's name is given without /dev/")
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%q is not a device name", name)
	}
	copy(dst[:], name)
	return nil
}

func putInfo(dst *[infoSize]byte, info string) error {
	if len(info) >= infoSize || strings.IndexByte(info, 0) >= 0 {
		return fmt.Errorf("info string of %d bytes: at most %d, and no NUL, fit", len(info), infoSize-1)
	}
	copy(dst[:], info)
	return nil
}
