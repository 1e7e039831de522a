package main

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// failure is what the program says as it ends: a sentence in geom(8)'s words,
// unlike the errors that pass through it.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// tooFew and wrongNumber refuse the operands of a verb that is ours; those of the
// original say no more than it does.
func (c *call) tooFew() error { return failf("Too few arguments; see `gvirstor help %s`", c.verb) }

func (c *call) wrongNumber() error {
	return failf("Invalid number of arguments; see `gvirstor help %s`", c.verb)
}

// failf makes a failure as fmt.Errorf makes an error. Strings are names of things,
// which somebody else may have chosen.
func failf(format string, args ...any) error {
	for i, a := range args {
		if name, ok := a.(string); ok {
			args[i] = ondisk.Printable(name)
		}
	}
	return &failure{fmt.Errorf(format, args...)}
}
