package geomlib

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestADeviceThatIsSwapIsNotOpenedForWriting needs root and md(4).
func TestADeviceThatIsSwapIsNotOpenedForWriting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	md := run("mdconfig", "-a", "-t", "malloc", "-s", "4m")
	t.Cleanup(func() { run("mdconfig", "-d", "-u", md) })
	p, err := Open(md, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	run("swapon", "/dev/"+md)
	swap := true
	off := func() {
		if swap {
			run("swapoff", "/dev/"+md)
			swap = false
		}
	}
	t.Cleanup(off)
	if _, err := Open(md, OpenOptions{}); !errors.Is(err, ErrLocked) || !errors.Is(err, ErrSwap) || !strings.Contains(err.Error(), "swapoff /dev/"+md) {
		t.Errorf("opened for writing: %v", err)
	}
	p, err = Open(md, OpenOptions{ReadOnly: true})
	if err != nil {
		t.Errorf("not even opened for reading: %v", err)
	} else if err := p.Close(); err != nil {
		t.Error(err)
	}
	off()
	if p, err = Open(md, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
