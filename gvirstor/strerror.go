package main

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
)

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
