package daemon

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// shortage counts the providers that could not be opened for want of descriptors,
// which are one problem and not as many.
type shortage struct {
	n     int
	first string
}

// count says whether that is why a provider could not be opened.
func (s *shortage) count(name string, err error) bool {
	if !errors.Is(err, syscall.EMFILE) {
		return false
	}
	if s.n++; s.n == 1 {
		s.first = name
	}
	return true
}

func (s *shortage) problems() []control.Problem {
	if s.n == 0 {
		return nil
	}
	return []control.Problem{{Providers: []string{s.first},
		Reason: fmt.Sprintf("%d providers, of which this is the first, are not open: the daemon has too few descriptors", s.n),
		Remedy: fmt.Sprintf("start it with a `ulimit -n` that is higher by %d at least", s.n)}}
}
