//go:build !linux

package geomlib

// windows are what a file lends from: nothing.
type windows struct{}

func (*windows) close() error { return nil }

// drop runs do.
func (*windows) drop(do func() error) error { return do() }

// lent is what a loan is of.
type lent struct{}

// End ends the loan.
func (lent) End() {}
