package gate

import "unsafe"

// Version is the version of the interface that this package speaks
// (G_GATE_VERSION, sys/geom/gate/g_gate.h).
const Version = 3

const (
	nameSize = 255  // NAME_MAX
	infoSize = 2048 // G_GATE_INFOSIZE
)

// Command is the number of an ioctl(2) on the control device.
type Command uint32

// The commands, as _IOWR('m', n, struct) of an LP64 machine makes them.
const (
	CmdCreate  = Command(iowr | unsafe.Sizeof(ctlCreate{})<<16)
	CmdModify  = Command(iowr | unsafe.Sizeof(ctlModify{})<<16 | 1)
	CmdDestroy = Command(iowr | unsafe.Sizeof(ctlDestroy{})<<16 | 2)
	CmdCancel  = Command(iowr | unsafe.Sizeof(ctlCancel{})<<16 | 3)
	CmdStart   = Command(iowr | unsafe.Sizeof(IO{})<<16 | 4)
	CmdDone    = Command(iowr | unsafe.Sizeof(IO{})<<16 | 5)

	iowr = 0xc0000000 | 'm'<<8 // IOC_INOUT, group 'm' (sys/sys/ioccom.h)
)

// String is the command's name without its prefix, as errors print it.
func (c Command) String() string {
	switch c {
	case CmdCreate:
		return "CREATE"
	case CmdModify:
		return "MODIFY"
	case CmdDestroy:
		return "DESTROY"
	case CmdCancel:
		return "CANCEL"
	case CmdStart:
		return "START"
	case CmdDone:
		return "DONE"
	}
	return "unknown command"
}

// Size is the length in bytes of the command's argument.
func (c Command) Size() int { return int(c >> 16 & 0x1fff) }

// Flags of a unit.
type Flags uint32

// The flags of Create.
const (
	// ReadOnly: the kernel answers writes, deletes and flushes with EPERM.
	ReadOnly Flags = 1
	// WriteOnly: the kernel refuses to open the device for reading.
	WriteOnly Flags = 2
)

const (
	unitByName = -2 // G_GATE_NAME_GIVEN

	modifyMediaSize = 1 // GG_MODIFY_MEDIASIZE
	modifyInfo      = 2 // GG_MODIFY_INFO
)

// ctlCreate is struct g_gate_ctl_create.
type ctlCreate struct {
	version    uint32
	mediaSize  int64
	sectorSize uint32
	flags      Flags
	maxCount   uint32
	timeout    uint32
	name       [nameSize]byte
	info       [infoSize]byte
	readProv   [nameSize]byte
	readOffset int64
	unit       int32
}

// ctlModify is struct g_gate_ctl_modify.
type ctlModify struct {
	version    uint32
	unit       int32
	modify     uint32
	mediaSize  int64
	info       [infoSize]byte
	readProv   [nameSize]byte
	readOffset int64
}

// ctlDestroy is struct g_gate_ctl_destroy.
type ctlDestroy struct {
	version uint32
	unit    int32
	force   int32
	name    [nameSize]byte
}

// ctlCancel is struct g_gate_ctl_cancel.
type ctlCancel struct {
	version uint32
	unit    int32
	seq     uint64
	name    [nameSize]byte
}

// IO is struct g_gate_ctl_io: one request, as Start fills it and Done answers
// it. It must stay at one address from Start to Done, which every Go variable
// on the heap does.
type IO struct {
	version uint32

	Unit   int32
	Seq    uint64 // the request's number in its unit, from 1; never changes
	Cmd    BIO
	Offset int64          // bytes
	Length int64          // bytes; set by Start to the request's, whatever the buffer's
	Data   unsafe.Pointer // memory that Start and Done name to the kernel
	Error  Errno          // the answer: 0 or an error, never ENOMEM or EAGAIN
}

// SetData makes b the memory that Done reads a read's data from.
func (io *IO) SetData(b []byte) { io.Data = unsafe.Pointer(unsafe.SliceData(b)) }

// BIO is what a request asks (sys/sys/bio.h).
type BIO uint32

// The requests that geom_gate delivers.
const (
	Read    BIO = 0x01
	Write   BIO = 0x02
	Delete  BIO = 0x03
	Flush   BIO = 0x05
	Speedup BIO = 0x0a // upper layers want space or memory freed; answer EOPNOTSUPP
)

// String is the request's name in sys/sys/bio.h.
func (b BIO) String() string {
	switch b {
	case Read:
		return "BIO_READ"
	case Write:
		return "BIO_WRITE"
	case Delete:
		return "BIO_DELETE"
	case Flush:
		return "BIO_FLUSH"
	case Speedup:
		return "BIO_SPEEDUP"
	}
	return "unknown BIO"
}

// The compiler proves the layout: an array of another length than 0 or 1 is
// another type, and the numbers are those of the C headers.
var (
	_ = [1]struct{}{}[CmdCreate-0xca306d00]
	_ = [1]struct{}{}[CmdModify-0xc9206d01]
	_ = [1]struct{}{}[CmdDestroy-0xc10c6d02]
	_ = [1]struct{}{}[CmdCancel-0xc1106d03]
	_ = [1]struct{}{}[CmdStart-0xc0386d04]
	_ = [1]struct{}{}[CmdDone-0xc0386d05]

	_ = [1]struct{}{}[unsafe.Sizeof(ctlCreate{})-2608]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.version)-0]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.mediaSize)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.sectorSize)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.flags)-20]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.maxCount)-24]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.timeout)-28]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.name)-32]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.info)-287]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.readProv)-2335]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.readOffset)-2592]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCreate{}.unit)-2600]

	_ = [1]struct{}{}[unsafe.Sizeof(ctlModify{})-2336]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlModify{}.unit)-4]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlModify{}.modify)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlModify{}.mediaSize)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlModify{}.info)-24]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlModify{}.readProv)-2072]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlModify{}.readOffset)-2328]

	_ = [1]struct{}{}[unsafe.Sizeof(ctlDestroy{})-268]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlDestroy{}.unit)-4]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlDestroy{}.force)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlDestroy{}.name)-12]

	_ = [1]struct{}{}[unsafe.Sizeof(ctlCancel{})-272]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCancel{}.unit)-4]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCancel{}.seq)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(ctlCancel{}.name)-16]

	_ = [1]struct{}{}[unsafe.Sizeof(IO{})-56]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Unit)-4]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Seq)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Cmd)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Offset)-24]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Length)-32]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Data)-40]
	_ = [1]struct{}{}[unsafe.Offsetof(IO{}.Error)-48]
)
