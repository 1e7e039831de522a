package gate_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
)

func TestErrorsNameTheCommandAndTheUnit(t *testing.T) {
	k := gatetest.New(gatetest.Options{})
	defer k.Close()
	g := k.Open()
	if _, err := g.Create(gate.CreateOptions{Unit: 3, MediaSize: 512, SectorSize: 512}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.OpenDev("ggate3", gatetest.Reader); err != nil {
		t.Fatal(err)
	}
	create := func(o gate.CreateOptions) error {
		_, err := g.Create(o)
		return err
	}
	name := func(name string) error {
		_, err := g.UnitByName(name)
		return err
	}
	io := &gate.IO{Unit: 3, Seq: 9, Error: gate.ENOMEM}
	for _, c := range []struct {
		err  error
		want string
		is   error
	}{
		{g.Start(4, io, nil), "START unit 4: no such unit", gate.ErrGone},
		{g.Start(-1, io, nil), "START: invalid argument", gate.EINVAL},
		{g.Destroy(3, false), "DESTROY unit 3: the device is open", gate.ErrBusy},
		{g.Cancel(-2, 0), "CANCEL: invalid argument", gate.EINVAL},
		{g.Resize(3, 100), "MODIFY unit 3: invalid argument", gate.EINVAL},
		{g.SetInfo(3, strings.Repeat("x", 2048)), "MODIFY unit 3: info string of 2048 bytes: at most 2047, and no NUL, fit", nil},
		{g.Done(&gate.IO{Unit: 3, Seq: 9, Error: gate.ENOMEM}), "DONE unit 3: request 9 must not be answered with error 12", nil},
		{g.Done(&gate.IO{Unit: 3, Seq: 9, Error: gate.EAGAIN}), "DONE unit 3: request 9 must not be answered with error 35", nil},
		{create(gate.CreateOptions{Unit: 3, MediaSize: 512, SectorSize: 512}), "CREATE unit 3: the unit or name is taken", gate.ErrExists},
		{create(gate.CreateOptions{Unit: -1, MediaSize: 512, SectorSize: 500}), "CREATE: sector size 500 is not a power of 2", nil},
		{create(gate.CreateOptions{Unit: -1, MediaSize: 700, SectorSize: 512}), "CREATE: media size 700 is not a multiple of the sector size 512", nil},
		{create(gate.CreateOptions{Unit: -1, MediaSize: 512, SectorSize: 512, Flags: 3}), "CREATE: flags 0x3 are not read-only, write-only or none", nil},
		{create(gate.CreateOptions{Unit: -2, MediaSize: 512, SectorSize: 512}), "CREATE: not a unit number", nil},
		{create(gate.CreateOptions{Name: "/dev/x", MediaSize: 512, SectorSize: 512}), "CREATE /dev/x: a device's name is given without /dev/", nil},
		{create(gate.CreateOptions{Name: "a\x00b", MediaSize: 512, SectorSize: 512}), "CREATE a\x00b: \"a\\x00b\" is not a device name", nil},
		{name(strings.Repeat("n", 255)), "CANCEL " + strings.Repeat("n", 255) + ": name of 255 bytes: at most 254 fit", nil},
		{name("virstor/none"), "CANCEL virstor/none: no such unit", gate.ErrGone},
		{gate.Errno(71), "error 71", nil},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got %v, want %s", c.err, c.want)
		}
		if c.is != nil && !errors.Is(c.err, c.is) {
			t.Errorf("%v is not %v", c.err, c.is)
		}
	}
}

func TestCommandsAreTheNumbersOfTheHeaders(t *testing.T) {
	for cmd, want := range map[gate.Command]struct {
		name string
		size int
	}{
		0xca306d00: {"CREATE", 2608},
		0xc9206d01: {"MODIFY", 2336},
		0xc10c6d02: {"DESTROY", 268},
		0xc1106d03: {"CANCEL", 272},
		0xc0386d04: {"START", 56},
		0xc0386d05: {"DONE", 56},
		1:          {"unknown command", 0},
	} {
		if cmd.String() != want.name || cmd.Size() != want.size {
			t.Errorf("%#x is %v of %d bytes, want %v of %d", uint32(cmd), cmd, cmd.Size(), want.name, want.size)
		}
	}
}

// vanished is a device whose kernel changed its mind about the version.
type vanished struct{ gate.Device }

func (v vanished) Ioctl(cmd gate.Command, arg unsafe.Pointer) gate.Errno {
	return gate.EINVAL
}

// notGgctl is any other descriptor.
type notGgctl struct{ gate.Device }

func (notGgctl) Ioctl(gate.Command, unsafe.Pointer) gate.Errno { return gate.ENOTTY }

func TestTheControlDeviceIsChecked(t *testing.T) {
	if _, err := gate.New(vanished{}); !errors.Is(err, gate.ErrVersion) {
		t.Errorf("EINVAL for a harmless command: %v", err)
	}
	if _, err := gate.New(notGgctl{}); !errors.Is(err, gate.ENOTTY) {
		t.Errorf("another descriptor: %v", err)
	}
}

func TestBuffersArePageAlignedZeros(t *testing.T) {
	b, err := gate.NewBuffer(gate.MaxPhys())
	if err != nil {
		t.Fatal(err)
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uintptr(os.Getpagesize()) != 0 {
		t.Error("not page-aligned")
	}
	for i, c := range b {
		if c != 0 {
			t.Fatalf("byte %d is %d", i, c)
		}
	}
	if err := gate.FreeBuffer(b); err != nil {
		t.Fatal(err)
	}
	if err := gate.FreeBuffer(b); err == nil {
		t.Error("freed twice")
	}
	if _, err := gate.NewBuffer(-1); err == nil {
		t.Error("a buffer of -1 bytes")
	}
}

func TestServingAllocatesNothing(t *testing.T) {
	k := gatetest.New(gatetest.Options{})
	defer k.Close()
	g := k.Open()
	if _, err := g.Create(gate.CreateOptions{Unit: 0, MediaSize: 1 << 20, SectorSize: 512}); err != nil {
		t.Fatal(err)
	}
	dev, err := k.OpenDev("ggate0", gatetest.Reader|gatetest.Writer)
	if err != nil {
		t.Fatal(err)
	}
	r, io, buf := g.NewReceiver(0), new(gate.IO), make([]byte, 4096)
	r.Enter()
	defer r.Leave()
	c := gatetest.NewCall()
	c.Cmd, c.Length, c.Data = gate.Write, 4096, make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		dev.Issue(c)
		if err := r.Start(io, buf); err != nil {
			t.Fatal(err)
		}
		if err := g.Done(io); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}
