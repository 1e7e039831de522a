package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// tellProgress asks this process how far its job is until it answers.
func tellProgress(t *testing.T, told <-chan struct{}) {
	t.Helper()
	// Until the program listens the signal would end this process.
	c, stop := progressSignals()
	defer stop()
	deadline := time.After(time.Minute)
	for {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		<-c
		select {
		case <-told:
			return
		case <-deadline:
			t.Fatal("a signal is not answered")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestTheBarFitsTheTerminal(t *testing.T) {
	j := control.JobStatus{Kind: "evacuate", Volume: "vol", Done: 25 << 20, Total: 100 << 20, Rate: 5 << 20}
	for _, width := range []int{0, 80, 50, 10} {
		e, out, _ := testEnv()
		e.terminal = func() (int, int, bool) { return width, 24, true }
		f := follower{call: &call{env: e}}
		f.bar(j)
		text := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r"), clearLine)
		if !strings.HasPrefix(text, "evacuate [") || !strings.HasSuffix(text, "]  25% 25M of 100M, 5.0M/s, 16s left") {
			t.Errorf("width %d: %q", width, text)
		}
		if w := max(width, len("evacuate []  25% 25M of 100M, 5.0M/s, 16s left")); width > 0 && len(text) > w {
			t.Errorf("width %d: %d characters", width, len(text))
		}
		if width == 80 && strings.Count(text, "#") != strings.Count(text, ".")/3 && !strings.Contains(text, "#######") {
			t.Errorf("%q", text)
		}
	}
	e, out, _ := testEnv()
	f := follower{call: &call{env: e}}
	f.bar(j)
	if out.Len() > 0 {
		t.Errorf("without a terminal: %q", out)
	}
}
