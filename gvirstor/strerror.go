package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// failure is what the program says as it ends: a sentence in geom(8)'s words,
// unlike the errors that pass through it.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// tooFew and wrongNumber refuse the operands of a verb that is ours; those of the
// original say no more than it does.
func (c *call) tooFew() error { return failf("Too few arguments; see `gvirstor help %s`", c.verb) }

func (c *call) wrongNumber() error {
	return failf("Invalid number of arguments; see `gvirstor help %s`", c.verb)
}

// failf makes a failure as fmt.Errorf makes an error. Strings are names of things,
// which somebody else may have chosen.
func failf(format string, args ...any) error {
	for i, a := range args {
		if name, ok := a.(string); ok {
			args[i] = ondisk.Printable(name)
		}
	}
	return &failure{fmt.Errorf(format, args...)}
}

// metadataText is errorText for verbs of ours that read metadata.
func metadataText(err error) string {
	if errors.Is(err, geomlib.ErrNoMetadata) {
		return "there is none of a volume"
	}
	return errorText(err)
}

// providerText is errorText of what concerns a provider whose name is printed
// beside it.
func providerText(name string, err error) string {
	return strings.TrimPrefix(errorText(err), name+": ")
}

// errorText is err in the words of FreeBSD's strerror(3) where it comes down to
// an error number, else its own.
func errorText(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, geomlib.ErrNoMetadata):
		return "Invalid argument" // as the original has it
	case errors.Is(err, geomlib.ErrLocked):
		return "Device busy"
	case errors.Is(err, context.Canceled):
		return "Interrupted"
	case !errors.As(err, &errno):
		return err.Error()
	case errno == syscall.EBUSY:
		return "Device busy"
	case errno == syscall.EIO:
		return "Input/output error"
	case errno == syscall.ENXIO:
		return "Device not configured"
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// warnings is the log of what works on volumes in this process.
func (c *call) warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
