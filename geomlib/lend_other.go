//go:build !linux

package geomlib

// windows are what a file lends from: nothing.
type windows struct{}

type window struct{}

func (*windows) close() error { return nil }

// drop runs do.
func (*windows) drop(do func() error) error { return do() }

// End ends the loan.
func (Loan) End() {}
