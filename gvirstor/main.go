// Command gvirstor makes, changes and shows VIRSTOR volumes, with the face of
// geom(8).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/providers"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(programMain()) }

func programMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Who asks how far a verb is must not end one that has nothing to tell.
	_, hear := progressSignals()
	defer hear()
	return run(ctx, &env{
		args:     os.Args[1:],
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		getenv:   os.Getenv,
		uid:      os.Geteuid(),
		dial:     control.Dial,
		kernel:   newKernel(),
		registry: providers.Registry(providers.Options{}),
		terminal: func() (width, height int, ok bool) {
			width, height, err := term.GetSize(int(os.Stdout.Fd()))
			return width, height, err == nil
		},
	})
}
