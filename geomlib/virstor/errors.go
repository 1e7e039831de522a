package virstor

import (
	"errors"
	"fmt"
)

// Errors that callers decide by. All are wrapped with what was attempted.
var (
	// ErrNoSpace: a write needs a chunk and none is free.
	ErrNoSpace = errors.New("no free chunk left in the volume")
	// ErrAbandoned ends a held write that nobody waits for any more.
	ErrAbandoned = errors.New("nobody waits for the request any more")
	// ErrReadOnly: a write to a volume opened read-only.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrClosed: the volume is closed or closing.
	ErrClosed = errors.New("volume is closed")
	// ErrRange: the range lies outside the volume.
	ErrRange = errors.New("range outside the volume")
	// ErrRequest: a request that makes no sense (unknown operation, lengths
	// that do not agree).
	ErrRequest = errors.New("malformed request")
	// ErrDegraded: a map sector could not be written, so nothing is allocated
	// until it can be.
	ErrDegraded = errors.New("volume is degraded: an allocation map sector could not be written")
	// ErrFlushFailed: a component lost data that it had accepted; its
	// flushes fail until the volume is reopened.
	ErrFlushFailed = errors.New("a flush of the component failed")
	// ErrLastSector: the chunk overlaps its component's metadata sector.
	ErrLastSector = errors.New("range lies on a component's metadata sector")
	// ErrIncomplete: a component is missing.
	ErrIncomplete = errors.New("volume is incomplete")
	// ErrDuplicate: two providers claim to be the same component.
	ErrDuplicate = errors.New("two providers claim to be the same component")
	// ErrDamaged: metadata or map contradict themselves.
	ErrDamaged = errors.New("volume is damaged")
	// ErrSectorSize: components of different sector sizes.
	ErrSectorSize = errors.New("components have different sector sizes")
	// ErrNotHandedBack: the volume stays fenced from the kernel class.
	ErrNotHandedBack = errors.New("volume stays fenced")
	// ErrTooSmall: a provider is too small to be a component.
	ErrTooSmall = errors.New("provider too small")
	// ErrInUse: the provider already is a component.
	ErrInUse = errors.New("provider already is a component")
	// ErrNoExtension: the label left no room for the extension block that
	// the operation needs.
	ErrNoExtension = errors.New("volume has no room for an extension block")
)

// IncompleteError is ErrIncomplete with what the volume lacks.
type IncompleteError struct {
	Lacks string // "component 1 of 3 of mydata is missing", and what is there instead
}

func (e *IncompleteError) Error() string { return ErrIncomplete.Error() + ": " + e.Lacks }

// Unwrap makes errors.Is(err, ErrIncomplete) true.
func (e *IncompleteError) Unwrap() error { return ErrIncomplete }

// incomplete makes an IncompleteError.
func incomplete(format string, args ...any) error {
	return &IncompleteError{fmt.Sprintf(format, args...)}
}
