package virstor

import (
	"bytes"
	"errors"
	"math/rand/v2"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// poolWay is what happens in a run beside writes, snapshots and volumes.
type poolWay struct {
	jobs  bool // chunks are moved, and components come and go
	doubt bool // a record that puts a directory in force is not written, or nobody knows
}

// recordFailure has a record of the pool fail.
type recordFailure struct {
	before int   // how many more of them are written first; that counts down
	with   error // what it fails with; nil where none is to
	failed bool  // one has: nobody knows which directory is in force
}

// meet gives what op, which a disk is about to do, fails with.
func (f *recordFailure) meet(op disktest.Op) error {
	if f.with == nil || op.Kind != disktest.Write || !bytes.HasPrefix(op.Data, []byte("GVIRSTOR::EXT")) {
		return nil
	}
	if f.before--; f.before >= 0 {
		return nil
	}
	err := f.with
	f.with, f.failed = nil, true
	return err
}

// during makes one of the records fail that do puts in force: it is not written, or it is and
// nobody knows.
func (f *recordFailure) during(rng *rand.Rand, do func() error) error {
	f.before, f.with = rng.IntN(2), errTraced
	if rng.IntN(2) == 0 {
		f.with = disktest.Completed(errTraced)
	}
	err := do()
	f.with = nil
	if f.failed && errors.Is(err, ErrUnfinished) {
		return nil
	}
	return err
}

func (f *recordFailure) count(counts *crashCounts) {
	if f.failed {
		counts.doubtful.Add(1)
	}
}
