package main

import (
	"errors"
	"strings"
	"testing"
)

// worked does work that is at 1 MiB of 4 until told to end, and returns what was
// printed meanwhile on the terminal, if there is one, and on the standard error output.
func worked(t *testing.T, terminal, quiet bool, meanwhile func(stdout, stderr *screen)) (string, error) {
	t.Helper()
	stdout, stderr := &screen{drawn: make(chan struct{}, 1)}, &screen{drawn: make(chan struct{}, 1)}
	e, _, _ := testEnv()
	e.stdout, e.stderr = stdout, stderr
	e.terminal = func() (int, int, bool) { return 80, 24, terminal }
	c := &call{env: e}
	begun, end := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- c.work("check", "mydata", quiet, func(progress func(done, total int64)) error {
			progress(1<<20, 4<<20)
			close(begun)
			<-end
			return errMedium
		})
	}()
	<-begun
	meanwhile(stdout, stderr)
	close(end)
	err := <-ended
	return stdout.text, err
}

var errMedium = errors.New("medium error")

func TestWorkDrawsABarOnATerminalAndTakesItAway(t *testing.T) {
	text, err := worked(t, true, false, func(stdout, _ *screen) {
		if text := stdout.take(t, clearLine); !strings.HasPrefix(text, "\rcheck [####") || !strings.Contains(text, " 25% 1.0M of 4.0M, ") {
			t.Errorf("bar: %q", text)
		}
	})
	if err != errMedium {
		t.Errorf("the error of the work is %v", err)
	}
	if !strings.HasSuffix(text, "\r"+clearLine) {
		t.Errorf("the bar stays: %q", text)
	}
}

func TestWorkTellsAtASignalHowFarItIsAndDrawsNoBarThatIsNotWanted(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		quiet := terminal
		text, _ := worked(t, terminal, quiet, func(_, stderr *screen) {
			told := make(chan struct{})
			go func() {
				<-stderr.drawn
				close(told)
			}()
			tellProgress(t, told)
			if text := stderr.take(t, "\n"); !strings.HasPrefix(text, "check of mydata:  25% 1.0M of 4.0M, ") {
				t.Errorf("told: %q", text)
			}
		})
		if text != "" {
			t.Errorf("terminal %v: drawn %q", terminal, text)
		}
	}
}
