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
	// ErrLoop means that a component would lie on the volume that is to lie on it.
	ErrLoop = errors.New("lies on the volume itself")
	// ErrNoExtension: the label left no room for the extension block that
	// the operation needs.
	ErrNoExtension = errors.New("volume has no room for an extension block")
)

// ErrUnfinished: an operation failed in the middle, and the next start finishes it.
var ErrUnfinished = errors.New("an operation failed in the middle; restart the volume to finish it")

// ErrChanged: the components hold something else than when the volume was opened.
var ErrChanged = errors.New("components have changed since they were read")

// ErrRecord: the extension record, though intact, contradicts the volume. It comes
// with ErrDamaged; the members of such an assembly are those without the record.
var ErrRecord = errors.New("extension record that cannot be one")

// ErrUnserved: the components hold, beside the volume and its snapshots, what no version
// serves that this one knows of.
var ErrUnserved = errors.New("components hold what this version does not serve; use one that does")

// ErrInterruptedAdd is why a component without a member block is ignored that component
// 0 does not count.
var ErrInterruptedAdd = errors.New("left by an interrupted add or remove: component 0 does not count it")

// ErrLabelled: a provider belongs to another volume.
var ErrLabelled = errors.New("is labelled")

var (
	// ErrNotGrown: the provider's metadata is where it belongs.
	ErrNotGrown = errors.New("provider has not grown")
	// ErrUnproved: nothing tells which of the metadata sectors that a provider holds
	// is the true one.
	ErrUnproved = errors.New("what the provider was is not proved")
)

// What a provider is that names the volume and is no member of it. None of them is
// read from, written to or cleared by an open volume, but for one that ErrLeaving is
// said of.
var (
	// ErrStale: the provider missed what the members have. It is, or was, one.
	ErrStale = errors.New("stale")
	// ErrStranger: the members do not know the provider: it was removed, its add
	// was not finished, or it comes from another volume of that id.
	ErrStranger = errors.New("no member")
	// ErrLeaving: the provider is being removed; the next opening for writing
	// finishes that, which clears it.
	ErrLeaving = errors.New("being removed")
	// ErrDamagedMember: the member block of the provider is damaged, so that
	// nobody knows what it is.
	ErrDamagedMember = errors.New("damaged member block")
	// ErrUnjudged: component 0, which says who is a member, is missing.
	ErrUnjudged = errors.New("component 0 is missing")
	// ErrHistories: the members went two ways since they parted, as those of a
	// cloned set do when both are used.
	ErrHistories = errors.New("two histories of one volume")
	// ErrOldSet: the members are older than what this host has served.
	ErrOldSet = errors.New("older than what was served here")
	// ErrTakesNoWrites: the component takes no writes and is only read.
	ErrTakesNoWrites = errors.New("component takes no writes")
)

// Errors of Remove.
var (
	// ErrAllocated: chunks of the component hold data.
	ErrAllocated = errors.New("component holds data")
	// ErrComponentZero: component 0 holds the allocation map.
	ErrComponentZero = errors.New("component 0 holds the allocation map")
	// ErrNotComponent: the provider is no component of the volume.
	ErrNotComponent = errors.New("not a component")
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

// Errors of jobs.
var (
	// ErrJobRunning: a volume does one long job at a time.
	ErrJobRunning = errors.New("another job is running")
	// ErrJobKind: there is no job of that kind.
	ErrJobKind = errors.New("unknown job")
	// ErrNoJob: there is no job to cancel.
	ErrNoJob = errors.New("no job is running")
)
