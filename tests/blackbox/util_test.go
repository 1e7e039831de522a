package blackbox

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

type bytesBuffer struct{ bytes.Buffer }

func (b *bytesBuffer) printf(format string, args ...any) { fmt.Fprintf(&b.Buffer, format, args...) }

func bytesContain(s, what string) bool { return strings.Contains(s, what) }

// background runs a program until the returned function is called, which waits
// for its end.
func background(t testing.TB, name string, args ...string) func() {
	t.Helper()
	c := exec.Command(name, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		c.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-done
	})
	return func() { <-done }
}

// residentKB is what Linux says a process has resident.
func residentKB(t testing.TB, pid int) int { return memoryKB(t, pid, "VmRSS") }

// memoryKB is one of the figures that Linux gives of a process's memory: VmRSS, or
// RssAnon, which leaves out the pages of the program.
func memoryKB(t testing.TB, pid int, what string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int
		if n, _ := fmt.Sscanf(line, what+": %d kB", &kb); n == 1 {
			return kb
		}
	}
	t.Fatal("no " + what)
	return 0
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
