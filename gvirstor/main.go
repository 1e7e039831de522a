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
		stdin:    os.Stdin,
		getenv:   os.Getenv,
		uid:      os.Geteuid(),
		dial:     control.Dial,
		kernel:   newKernel(),
		registry: providers.Registry(providers.Options{}),
		typed:    func() bool { return term.IsTerminal(int(os.Stdin.Fd())) },
		terminal: sizeOf(os.Stdout), errTerminal: sizeOf(os.Stderr),
	})
}

// sizeOf tells the size of f, if that is a terminal.
func sizeOf(f *os.File) func() (width, height int, ok bool) {
	return func() (width, height int, ok bool) {
		width, height, err := term.GetSize(int(f.Fd()))
		return width, height, err == nil
	}
}
