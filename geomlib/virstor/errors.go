package virstor

import "errors"

// What a Request fails with. Fronts tell these apart with errors.Is; any other
// error is an I/O error of a component.
var (
	// ErrNoSpace means that no component has a free chunk (ENOSPC).
	ErrNoSpace = errors.New("no free chunk on any component")
	// ErrReadOnly answers whatever would change a volume opened read-only.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrClosed means that the volume is closed or being closed.
	ErrClosed = errors.New("volume is closed")
	// ErrRange means that the request reaches beyond the end of the volume.
	ErrRange = errors.New("request beyond the end of the volume")
)
