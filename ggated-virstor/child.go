package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// errNoURI: there is nothing that a command could connect to.
var errNoURI = errors.New("--run: no volume is reached by NBD")

// child is the command of --run, which ends the service when it ends.
type child struct {
	command, control string
	end              context.CancelFunc // ends the service

	running sync.WaitGroup
	err     error // why it failed; set before running is done
}

// start runs the command with the NBD URI of the first volume, until it ends or ctx does.
func (c *child) start(ctx context.Context) error {
	client, err := control.Dial(c.control)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	uri := ""
	for i := range st.Volumes {
		for _, p := range st.Volumes[i].Published {
			if uri == "" {
				uri = p.URI
			}
		}
	}
	if uri == "" {
		return errNoURI
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "uri="+ownfile.ShellWord(uri)+"; "+c.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	c.running.Go(func() {
		defer c.end()
		if err := cmd.Run(); ctx.Err() == nil {
			c.err = err // else it was told to end
		}
	})
	return nil
}

// wait waits for the command's end, and returns why it failed.
func (c *child) wait() error {
	c.end()
	c.running.Wait()
	return c.err
}

// exitStatus is that of the program for an error of run: the status of a command of --run
// that failed, and 1 else. told: there is nothing to add to it.
func exitStatus(err error) (status int, told bool) {
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() > 0 {
		return ended.ExitCode(), true
	}
	return 1, false
}

// withParent is a context that ends with ctx, and when this process's parent has ended.
func withParent(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() {
		look := time.NewTicker(200 * time.Millisecond)
		defer look.Stop()
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
		}
		cancel()
	}()
	return ctx, cancel
}
