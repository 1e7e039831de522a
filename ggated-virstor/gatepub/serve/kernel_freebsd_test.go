package serve

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

const realSize = 64 << 20

// realUnit makes a unit of the running kernel, served from d.
func realUnit(t *testing.T, d Disk, o gate.CreateOptions, cfg Config) (*gate.Gate, int, *Publication) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + 4)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	g, err := gate.Open()
	must(t, err)
	if o.MediaSize == 0 {
		o.MediaSize = realSize
	}
	o.SectorSize = sector
	unit, err := g.Create(o)
	must(t, err)
	p, err := Start(g, unit, d, cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := g.Destroy(unit, true); err != nil && !errors.Is(err, gate.ErrGone) {
			t.Error(err)
		}
		// The next test's unit has the same number: a receiver that is not out would
		// take its requests.
		select {
		case <-p.Done():
		case <-timeout(t).Done():
			t.Error("the publication does not end with its unit")
		}
	})
	return g, unit, p
}

func node(unit int) string { return "/dev/ggate" + strconv.Itoa(unit) }

func openNode(t *testing.T, path string) *os.File {
	t.Helper()
	eventually(t, path+" appears", func() bool { _, err := os.Stat(path); return err == nil })
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func diskIoctl(f *os.File, cmd uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), cmd, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

func mediaSize(t *testing.T, f *os.File) int64 {
	t.Helper()
	var n int64
	must(t, diskIoctl(f, unix.DIOCGMEDIASIZE, unsafe.Pointer(&n)))
	return n
}

func TestRealKernelServesEveryRequest(t *testing.T) {
	for _, cfg := range []Config{{}, {Receivers: 4, MayBlock: true}} {
		d := &ramDisk{data: make([]byte, 2*realSize)}
		g, unit, p := realUnit(t, d, gate.CreateOptions{Unit: gate.UnitAuto, Info: "first"}, cfg)
		t.Logf("unit %d, kern.maxphys %d", unit, gate.MaxPhys())
		f := openNode(t, node(unit))
		if n := mediaSize(t, f); n != realSize {
			t.Fatalf("%d bytes", n)
		}
		want := make([]byte, 4<<20)
		for i := range want {
			want[i] = byte(i * 7 / 512)
		}
		_, err := f.WriteAt(want, 1<<20)
		must(t, err)
		got := make([]byte, len(want))
		_, err = f.ReadAt(got, 1<<20)
		must(t, err)
		if !bytes.Equal(got, want) || !bytes.Equal(d.data[1<<20:][:len(want)], want) {
			t.Fatal("read something else")
		}
		must(t, diskIoctl(f, unix.DIOCGFLUSH, nil))
		trim := [2]int64{1 << 20, 32 << 20}
		must(t, diskIoctl(f, unix.DIOCGDELETE, unsafe.Pointer(&trim)))
		_, err = f.ReadAt(got, 1<<20)
		must(t, err)
		if !bytes.Equal(got, make([]byte, len(got))) {
			t.Fatal("the delete did nothing")
		}

		_, err = g.Create(gate.CreateOptions{Unit: unit, MediaSize: realSize, SectorSize: sector})
		wantErr(t, err, gate.ErrExists)
		wantErr(t, g.Destroy(unit, false), gate.ErrBusy)
		must(t, g.Resize(unit, 2*realSize))
		eventually(t, "the new size", func() bool { return mediaSize(t, f) == 2*realSize })
		must(t, g.SetInfo(unit, "ggated-virstor 1234abcd"))
		xml, err := unix.Sysctl("kern.geom.confxml")
		must(t, err)
		if !strings.Contains(xml, "<info>ggated-virstor 1234abcd</info>") {
			t.Error("the info string is not in kern.geom.confxml")
		}
		d.mu.Lock()
		d.fail = virstor.ErrNoSpace
		d.mu.Unlock()
		_, err = f.WriteAt(want[:sector], 0)
		wantErr(t, err, syscall.ENOSPC)
		t.Logf("%+v", p.Stats())
		must(t, f.Close())
		must(t, g.Destroy(unit, false))
		<-p.Done()
		wantErr(t, p.Err(), gate.ErrGone)
		wantErr(t, g.Cancel(unit, 0), gate.ErrGone)
	}
}

func TestRealKernelGivesANamedUnit(t *testing.T) {
	g, unit, _ := realUnit(t, &ramDisk{data: make([]byte, realSize)}, gate.CreateOptions{Name: "virstor/gatepub-test"}, Config{})
	f := openNode(t, "/dev/virstor/gatepub-test")
	must(t, f.Close())
	if n, err := g.UnitByName("virstor/gatepub-test"); n != unit || err != nil {
		t.Fatal(n, err)
	}
	_, err := g.UnitByName("virstor/none-such")
	wantErr(t, err, gate.ErrGone)
}

func TestRealKernelRequeuesForTheSuccessor(t *testing.T) {
	d := newHandDisk()
	ram := &ramDisk{data: make([]byte, realSize)}
	switchable := &switchDisk{}
	switchable.set(ram)
	g, unit, p := realUnit(t, switchable, gate.CreateOptions{Unit: gate.UnitAuto}, Config{Receivers: 2})
	f := openNode(t, node(unit))
	switchable.set(d)
	results := make(chan error, 3)
	for i := range int64(3) {
		go func() {
			_, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 8*sector), i*16*sector)
			results <- err
		}()
	}
	rs := d.wait(3)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	begin := time.Now()
	must(t, p.Abandon(ctx))
	t.Logf("receivers left START after %v", time.Since(begin))
	for _, r := range rs {
		d.complete(r, virstor.ErrClosed)
	}
	<-p.Done()
	p2, err := Start(g, unit, ram, Config{})
	must(t, err)
	for range 3 {
		must(t, <-results)
	}
	for i := range 3 {
		if ram.data[i*16*sector] != byte(i+1) {
			t.Errorf("write %d was not replayed", i)
		}
	}
	begin = time.Now()
	must(t, p2.Stop(ctx))
	t.Logf("stopped after %v", time.Since(begin))
	p3, err := Start(g, unit, ram, Config{})
	must(t, err)
	must(t, f.Close())
	must(t, g.Destroy(unit, false))
	<-p3.Done()
}

func TestRealKernelStandsSignals(t *testing.T) {
	ram := &ramDisk{data: make([]byte, realSize)}
	_, unit, p := realUnit(t, ram, gate.CreateOptions{Unit: gate.UnitAuto}, Config{Receivers: 3})
	f := openNode(t, node(unit))
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, unix.SIGUSR1, unix.SIGIO)
	defer signal.Stop(ch)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-ch:
			default:
				_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
				_ = unix.Kill(os.Getpid(), unix.SIGIO)
				runtime.Gosched()
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for i := range int64(500) {
		_, err := f.WriteAt(buf, i%100*int64(len(buf)))
		must(t, err)
	}
	close(stop)
	<-stopped
	wantErr(t, p.Err(), nil)
	must(t, f.Close())
}

// switchDisk passes requests on to whatever disk is set.
type switchDisk struct{ now atomic.Pointer[Disk] }

func (d *switchDisk) Submit(r *virstor.Request) { (*d.now.Load()).Submit(r) }
func (d *switchDisk) set(now Disk)              { d.now.Store(&now) }
