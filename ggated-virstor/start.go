package main

import (
	"context"
	"errors"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
)

// startGrace is how long what is being opened may go on after the stop.
const startGrace = 1500 * time.Millisecond

// errStart: nobody has been answered yet, so nothing is lost.
var errStart = errors.New("stopped at the start, while something that it opens did not answer")

// startSoon does run, which calls its argument once it serves or sees to its end itself.
// Until then it may hang in a file, a folder or a socket, and is left to itself some time
// after ctx ends.
func startSoon(ctx context.Context, run func(serving func()) error) error {
	serving, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- run(func() { close(serving) }) }()
	select {
	case err := <-ended:
		return err
	case <-serving:
		return <-ended
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-serving:
		return <-ended
	case <-time.After(startGrace):
		return errStart
	}
}

// serveAll serves every volume on the providers. It gives up some time after stop is
// closed, when opens that hang have been given up.
func serveAll(d *daemon.Daemon, providers []string, stop <-chan struct{}) (int, error) {
	served := make(chan int, 1)
	go func() { served <- d.ServeAll(providers) }()
	select {
	case n := <-served:
		return n, nil
	case <-stop:
	}
	select {
	case n := <-served:
		if n == 0 {
			return 0, errStart
		}
		return n, nil
	case <-time.After(startGrace):
		return 0, errStart
	}
}

// after calls do when told is closed, unless the function that it returns, which waits for
// do, was called before.
func after(told <-chan struct{}, do func()) (end func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-told:
			do()
		case <-ended:
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}
