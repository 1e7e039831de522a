package ondisk

import (
	"fmt"
	"math"
)

// Validate tells whether the record can be one of the volume whose component 0 m
// describes, in sectors of sectorSize bytes: nil, or ErrExtensionContents with the
// first reason against it. m is valid (Metadata.Validate). A checksum only proves
// that somebody wrote the record; whoever acts on it asks here first.
func (e Extension) Validate(m Metadata, sectorSize int) error {
	if e.Sequence > math.MaxInt64 {
		return fmt.Errorf("%w: sequence number %d", ErrExtensionContents, e.Sequence)
	}
	if err := e.validateIntent(m); err != nil {
		return err
	}
	return e.validateTask(m, sectorSize)
}

// components is how many components an intent or a task can name: while one is
// removed from the middle the last one has two indexes, and one that has become
// component 0, in whose place another left, is named by the index that it had.
func (e Extension) components(m Metadata) uint64 {
	n := uint64(m.Count)
	switch {
	case e.Intent.Kind == IntentRemove:
		n = max(n, e.Intent.Arg[1]+1)
	case e.Intent.Kind == IntentReplaceZero && e.Intent.Leaves != 0:
		n++
	}
	return n
}

func (e Extension) validateIntent(m Metadata) error {
	switch a := e.Intent.Arg; e.Intent.Kind {
	case IntentNone:
		return nil
	case IntentRemove:
		// The count is that before the removal or that after it. Since members have
		// ids the last component leaves under an intent as well.
		removed, last, count := a[0], a[1], uint64(m.Count)
		itself := removed == last && e.Intent.Leaves != 0 && e.Intent.Leaves == e.Intent.Moves
		if removed == 0 || removed >= last && !itself || last != count && last+1 != count {
			return fmt.Errorf("%w: component %d is replaced by component %d of %d", ErrExtensionContents, removed, last, count)
		}
		return nil
	case IntentReplaceZero:
		if a[0] == 0 || a[0] >= e.components(m) {
			return fmt.Errorf("%w: component 0 changes places with component %d of %d", ErrExtensionContents, a[0], m.Count)
		}
		return nil
	case IntentNewID:
		if a[0] > math.MaxUint32 || uint32(a[0]) == m.ID {
			return fmt.Errorf("%w: the id before %08x was %#x", ErrExtensionContents, m.ID, a[0])
		}
		return nil
	case IntentRollback:
		return nil // nothing of it is the geometry's
	}
	return fmt.Errorf("%w: no version of this program begins the operation %q", ErrExtensionContents, e.Intent.Kind)
}

func (e Extension) validateTask(m Metadata, sectorSize int) error {
	t := e.Task
	if t.Kind == TaskNone {
		return nil
	}
	if t.Arg[0] > math.MaxInt64 {
		return fmt.Errorf("%w: a %s at %d bytes a second", ErrExtensionContents, t.Kind, t.Arg[0])
	}
	switch t.Kind {
	case TaskEvacuate, TaskReplace:
		return e.validateLeaving(m)
	case TaskResize:
		return t.validateSize(m, sectorSize)
	}
	return nil
}

// validateLeaving looks at a task that empties components. The one that was last
// may be gone already: its removal commits before the task is written anew.
func (e Extension) validateLeaving(m Metadata) error {
	t, n := e.Task, e.components(m)
	seen := make(map[uint32]bool)
	for _, c := range t.Components[:t.ComponentCount] {
		if uint64(c) > n || seen[c] {
			return fmt.Errorf("%w: a task that empties component %d, of %d, or twice", ErrExtensionContents, c, n)
		}
		seen[c] = true
	}
	if t.ComponentCount == 0 {
		return fmt.Errorf("%w: a task that empties no component", ErrExtensionContents)
	}
	if t.Kind == TaskReplace && (t.Arg[1] >= n || seen[uint32(t.Arg[1])]) {
		return fmt.Errorf("%w: component %d of %d takes what is on component %v", ErrExtensionContents, t.Arg[1], n, t.Components[0])
	}
	return nil
}

// validateSize looks at a task that changes the virtual size.
func (t Task) validateSize(m Metadata, sectorSize int) error {
	size, chunk := t.Arg[1], int64(m.ChunkSize)
	if size > math.MaxInt64 {
		return fmt.Errorf("%w: a virtual size of %d bytes", ErrExtensionContents, size)
	}
	rounded, _, err := RoundVirtualSize(int64(size), chunk, sectorSize)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrExtensionContents, err)
	}
	if rounded != int64(size) {
		return fmt.Errorf("%w: a virtual size of %d bytes is not what label would make of it", ErrExtensionContents, size)
	}
	mapBytes := rounded / chunk * EntrySize
	if chunks := (mapBytes + chunk - 1) / chunk; 2*chunks > MaxReserved {
		return fmt.Errorf("%w: a virtual size of %d bytes reserves %d chunks, at most %d are possible",
			ErrExtensionContents, size, 2*chunks, MaxReserved)
	}
	if t.Arg[2] > 1 {
		return fmt.Errorf("%w: argument %d of a resize", ErrExtensionContents, t.Arg[2])
	}
	return nil
}
