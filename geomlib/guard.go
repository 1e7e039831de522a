package geomlib

import (
	"context"
	"errors"
)

// ErrLeaseLost means that another host serves the volume now, or may: nothing is sent to
// its components any more.
var ErrLeaseLost = errors.New("the lease of the volume is lost")

// Guard says whether requests may be sent to a provider that other hosts can reach too. Its
// methods may be called by many goroutines at once.
type Guard interface {
	// MaySend reports whether a request may be sent now. It is asked immediately before
	// each one, and neither waits nor allocates.
	MaySend() bool
	// Wait returns when MaySend may be true again, or ErrLeaseLost, wrapped, when it will
	// not be, or is not for too long.
	Wait() error
	// Regained is asked when p is reached again after it was not, before anything is
	// written by way of the new connection: by is that one alone. An error forbids to;
	// ErrLeaseLost, wrapped, for good.
	Regained(ctx context.Context, p Guarded, by Once) error
}

// Once does what it is asked once: it neither waits until a server is reached, nor does a
// request again whose outcome is not known.
type Once interface {
	ReadOnce(p []byte, off int64) error
	// WriteOnce returns when p is on stable storage.
	WriteOnce(p []byte, off int64) error
}

// Guarded is implemented by providers that keep requests to send them later, or again: a
// look at the Guard before a method is called would not do.
type Guarded interface {
	Provider
	Once
	// Guard has g asked from now on before anything is changed; nil: nobody.
	Guard(g Guard)
	// Abandon has all that waits fail with why, and all that comes, but Close.
	Abandon(why error)
}
