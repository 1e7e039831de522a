package space

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
)

const (
	shellOutput = 4 << 10         // bytes of output that are kept
	shellDelay  = 2 * time.Second // for pipes of what survived
)

// Shell is the Runner that gives its command to sh(1).
type Shell struct{ Command string }

// Run implements Runner. A command that others can change by now is not run
// (ownfile.ErrUnsafe).
func (s Shell) Run(ctx context.Context, env []string, stdin []byte) ([]byte, error) {
	if err := ownfile.CheckCommand(s.Command); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", s.Command)
	c.Env = append(os.Environ(), env...)
	c.Dir = "/"
	c.Stdin = bytes.NewReader(stdin)
	out := &firstBytes{max: shellOutput}
	c.Stdout, c.Stderr = out, out
	// A group of its own, so that what the command starts is killed with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = shellDelay
	err := c.Run()
	return out.b, err
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	b   []byte
	max int
}

func (w *firstBytes) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), w.max-len(w.b))]...)
	return len(p), nil
}
