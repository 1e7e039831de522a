package geomlib

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loop makes a block device of a file of 16 MiB.
func loop(t *testing.T, options ...string) string {
	t.Helper()
	needRoot(t)
	out, err := exec.Command("losetup", append(options, "-f", "--show", newFile(t, 16*mib))...).Output()
	if err != nil {
		t.Fatal("losetup:", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "-d", dev).Run(); err != nil {
			t.Error("losetup -d:", err)
		}
	})
	return dev
}

func TestBlockDevice(t *testing.T) {
	for sector, option := range map[int]string{512: "--sector-size=512", 4096: "--sector-size=4096"} {
		dev := loop(t, option)
		p := mustOpen(t, strings.TrimPrefix(dev, "/dev/"), OpenOptions{})
		if p.Name() != dev || p.MediaSize() != 16*mib || p.SectorSize() != sector || KindOf(p) != KindDevice || IsRegular(p) {
			t.Fatalf("%s, %d bytes in sectors of %d, a %s", p.Name(), p.MediaSize(), p.SectorSize(), KindOf(p))
		}
		if _, ok := p.(HoleFinder); ok {
			t.Error("a device is a HoleFinder")
		}
		want := bytes.Repeat([]byte{9}, 64<<10)
		if _, err := p.WriteAt(want, 16*mib-64<<10); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := p.ReadAt(got, 16*mib-64<<10); err != nil || !bytes.Equal(got, want) {
			t.Fatal("read back something else", err)
		}
		// Dirty in the cache: the zeros must win.
		if _, err := p.WriteAt(want, mib); err != nil {
			t.Fatal(err)
		}
		if err := p.(Zeroer).WriteZeroes(mib+4096, 8192); err != nil {
			t.Fatal(err)
		}
		clear(want[4096:12288])
		if _, err := p.ReadAt(got, mib); err != nil || !bytes.Equal(got, want) {
			t.Fatal("zeroed and read back something else", err)
		}
		if err := p.Delete(mib, mib); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
}

func TestABlockDeviceInUseByTheKernelIsLocked(t *testing.T) {
	dev := loop(t)
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0) // as a mount does
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []OpenOptions{{}, {ReadOnly: true, KeepWritersOff: true}} {
		if p, err := Open(dev, o); !errors.Is(err, ErrLocked) || !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), dev) {
			t.Errorf("%+v: %v, %v", o, p, err)
		}
	}
	for _, o := range []OpenOptions{{ReadOnly: true}, {ReadOnly: true, NoLock: true}} {
		p, err := Open(dev, o)
		if err != nil {
			t.Errorf("%+v: %v", o, err)
			continue
		}
		p.Close()
	}
	unix.Close(fd)
	p := mustOpen(t, dev, OpenOptions{})
	if fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0); err != unix.EBUSY {
		t.Errorf("the kernel can take a device that is served: %d, %v", fd, err)
	}
	p.Close()
}

func TestAWriteProtectedMediumIsServedReadOnly(t *testing.T) {
	dev := loop(t, "-r")
	if _, err := Open(dev, OpenOptions{}); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dev) {
		t.Fatal("opened for writing:", err)
	}
	p := mustOpen(t, dev, OpenOptions{ReadOnly: true, KeepWritersOff: true})
	if _, err := p.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(make([]byte, 4096), 0); !errors.Is(err, unix.EROFS) {
		t.Fatal(err)
	}
	p.Close()
}
