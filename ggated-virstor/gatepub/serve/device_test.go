package serve

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// hookDevice lets a test come between the publication and the kernel.
type hookDevice struct {
	gate.Device
	hook func(cmd gate.Command, io *gate.IO) // before START and DONE
}

func (d *hookDevice) Ioctl(cmd gate.Command, arg unsafe.Pointer) gate.Errno {
	if cmd == gate.CmdStart || cmd == gate.CmdDone {
		d.hook(cmd, (*gate.IO)(arg))
	}
	return d.Device.Ioctl(cmd, arg)
}

func (d *hookDevice) NewThread() gate.Thread { return &hookThread{d.Device.NewThread(), d} }

type hookThread struct {
	gate.Thread
	d *hookDevice
}

func (t *hookThread) Ioctl(cmd gate.Command, arg unsafe.Pointer) gate.Errno {
	t.d.hook(cmd, (*gate.IO)(arg))
	return t.Thread.Ioctl(cmd, arg)
}

// hooked has the publication of a fixture talk to the kernel through hook.
func hooked(hook func(*fixture, gate.Command, *gate.IO)) func(*fixture) {
	return func(f *fixture) {
		g, err := gate.New(&hookDevice{f.k.Device(), func(cmd gate.Command, io *gate.IO) { hook(f, cmd, io) }})
		must(f.t, err)
		f.g = g
	}
}

func TestNothingOverlapsARequestWhoseAnswerIsOnItsWay(t *testing.T) {
	answering, goOn := make(chan struct{}, 2), make(chan struct{})
	d := newHandDisk()
	f := newFixture(t, d, setup{prepare: hooked(func(_ *fixture, cmd gate.Command, _ *gate.IO) {
		if cmd == gate.CmdDone {
			answering <- struct{}{}
			<-goOn
		}
	})})
	a, b := f.issue(gate.Write, 0, 2), f.issue(gate.Write, 1, 3)
	f.idle(2)
	go d.complete(d.wait(1)[0], nil)
	<-answering
	if s := f.p.Stats(); s.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
	close(goOn)
	wantErr(t, a.Wait(), nil)
	d.complete(d.wait(1)[0], nil)
	wantErr(t, b.Wait(), nil)
}

func TestAWriteThatComesInPlaceOfALongDeleteIsTaken(t *testing.T) {
	var once atomic.Bool
	var stolen gate.IO
	d := &ramDisk{data: make([]byte, 1<<20)}
	var write *gatetest.Call
	written := make(chan struct{})
	f := newFixture(t, d, setup{
		kernel: gatetest.Options{DeleteNeedsRoom: true},
		prepare: hooked(func(f *fixture, cmd gate.Command, io *gate.IO) {
			if cmd != gate.CmdStart || io.Data != nil || once.Swap(true) {
				return
			}
			// The delete goes; the START that claims its length meets a write.
			if err := f.k.Open().Start(0, &stolen, make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
			write = f.write(0, 4, 8)
			close(written)
		})})
	trim := f.issue(gate.Delete, 0, 2000)
	<-written
	wantErr(t, write.Wait(), nil)
	if !bytes.Equal(d.data[:4*sector], bytes.Repeat([]byte{8}, 4*sector)) {
		t.Fatal("the write's data did not arrive")
	}
	must(t, f.g.Done(&stolen))
	wantErr(t, trim.Wait(), nil)
}

// dyingDevice is a kernel that is about to destroy the unit: every START is
// canceled at once.
type dyingDevice struct {
	gate.Device
	starts atomic.Int64
	gone   time.Time
}

func (d *dyingDevice) Ioctl(cmd gate.Command, arg unsafe.Pointer) gate.Errno {
	if cmd != gate.CmdStart {
		return 0
	}
	if d.starts.Add(1) > 1000 || time.Now().After(d.gone) {
		return gate.ENXIO
	}
	(*gate.IO)(arg).Error = gate.ECANCELED
	return 0
}

func (d *dyingDevice) NewThread() gate.Thread { return dyingThread{d} }

type dyingThread struct{ *dyingDevice }

func (dyingThread) Enter()     {}
func (dyingThread) Leave()     {}
func (dyingThread) Interrupt() {}

func TestADyingUnitIsNotAskedInAHotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dyingDevice{gone: time.Now().Add(time.Second)}
		g, err := gate.New(d)
		must(t, err)
		p, err := Start(g, 0, newHandDisk(), Config{})
		must(t, err)
		<-p.Done()
		wantErr(t, p.Err(), gate.ErrGone)
		if n := d.starts.Load(); n > 15 {
			t.Fatalf("asked %d times in a second", n)
		}
	})
}

func TestAnswersAreNeverENOMEMOrEAGAIN(t *testing.T) {
	var bad atomic.Int64
	d := &ramDisk{data: make([]byte, 1<<20)}
	f := newFixture(t, d, setup{prepare: hooked(func(_ *fixture, cmd gate.Command, io *gate.IO) {
		if cmd == gate.CmdDone && slices.Contains([]gate.Errno{gate.ENOMEM, gate.EAGAIN}, io.Error) {
			bad.Add(1)
		}
	})})
	for _, err := range []error{gate.ENOMEM, gate.EAGAIN, virstor.ErrNoSpace, virstor.ErrDegraded} {
		d.mu.Lock()
		d.fail = err
		d.mu.Unlock()
		if f.issue(gate.Write, 0, 1).Wait() == nil {
			t.Fatal("an error was lost")
		}
	}
	if bad.Load() != 0 {
		t.Fatal("answered so")
	}
}
