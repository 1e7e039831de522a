package virstor

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrUnfinished: an operation failed in the middle, and the next start finishes it.
var ErrUnfinished = errors.New("an operation failed in the middle; restart the volume to finish it")

// doubtLocked notes that a write to component 0 failed of which nobody knows what it
// left, and that one outcome would lose what is written from now on. Until the volume is
// reopened no map sector, no extension record and no metadata is written any more.
// v.metaMu is held and the committer is paused.
func (v *Volume) doubtLocked(err error) error {
	return v.cond.freeze(err)
}

// settledLocked refuses what changes metadata while it is not known what that is, or
// while an operation is half done. A list of members that could not be taken back before
// is taken back first. v.metaMu is held.
func (v *Volume) settledLocked() error {
	if err := v.cond.refusal(deedWriteMetadata); err != nil {
		return err
	}
	if err := v.relistLocked(); err != nil {
		return err
	}
	if k := v.ext.rec.Intent.Kind; v.ext.room && k != ondisk.IntentNone {
		return fmt.Errorf("%w: %q", ErrUnfinished, k)
	}
	return nil
}
