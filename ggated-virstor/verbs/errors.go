package verbs

import (
	"errors"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Classify gives an error of the engine the kind and the code that who asked decides by.
// One that has a kind is left as it is, and so is nil.
func Classify(err error) error {
	var known *control.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	for _, c := range classes() {
		if errors.Is(err, c.err) {
			return control.Errorf(c.kind, "%v", err).WithCode(c.code)
		}
	}
	return control.Errorf(control.Internal, "%v", err)
}

// class is what an error of the engine is to who asked.
type class struct {
	err  error
	kind control.Kind
	code control.Code
}

func classes() []class {
	return []class{
		{virstor.ErrInUse, control.Invalid, control.AlreadyComponent},
		{virstor.ErrTooSmall, control.Invalid, control.ProviderTooSmall},
		{virstor.ErrSectorSize, control.Invalid, control.SectorSizeDiffers},
		{virstor.ErrNotComponent, control.Invalid, ""},
		{virstor.ErrComponentZero, control.Invalid, ""},
		{virstor.ErrAllocated, control.Invalid, ""},
		{virstor.ErrClaimed, control.Busy, ""},
		{virstor.ErrReadOnly, control.Invalid, ""},
		{virstor.ErrRequest, control.Invalid, ""},
		{virstor.ErrNoExtension, control.Invalid, ""},
		{virstor.ErrTakesNoWrites, control.Invalid, ""},
		{virstor.ErrLabelled, control.Invalid, control.HoldsData},
		{virstor.ErrStale, control.Invalid, ""},
		{virstor.ErrStranger, control.Invalid, ""},
		{virstor.ErrDamagedMember, control.Invalid, ""},
		{virstor.ErrJobKind, control.Invalid, ""},
		{virstor.ErrSnapshotDamaged, control.Invalid, ""},
		{virstor.ErrSnapshotExists, control.Invalid, ""},
		{virstor.ErrTooMany, control.Invalid, ""},
		{virstor.ErrWouldLose, control.Invalid, ""},
		{virstor.ErrLargerSnapshots, control.Invalid, ""},
		{virstor.ErrNoSnapshot, control.NotFound, ""},
		{virstor.ErrNoVolume, control.NotFound, ""},
		{virstor.ErrVolumeExists, control.Invalid, ""},
		{virstor.ErrVolumeInUse, control.Busy, ""},
		{virstor.ErrHasSnapshots, control.Invalid, ""},
		{virstor.ErrCloned, control.Invalid, ""},
		{virstor.ErrNotOlder, control.Invalid, ""},
		{virstor.ErrSnapshotInUse, control.Busy, ""},
		{virstor.ErrBusy, control.Busy, ""},
		{ondisk.ErrMapName, control.Invalid, ""},
		{geomlib.ErrLocked, control.Busy, ""},
		{virstor.ErrJobRunning, control.Busy, ""},
		{virstor.ErrClosed, control.Busy, ""},
		{virstor.ErrNoSpace, control.NoSpace, ""},
	}
}
