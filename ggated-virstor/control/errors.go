package control

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an Error is.
type Kind string

// The kinds of failure.
const (
	NotFound Kind = "not_found" // no such volume or job
	Busy     Kind = "busy"      // open, connected, or in use by another
	Invalid  Kind = "invalid"   // the request makes no sense or cannot be met
	NoSpace  Kind = "no_space"
	Internal Kind = "internal" // anything else
)

// Error is a failure as the daemon tells it. Backends return it (wrapped or not) to
// choose the kind; any other error is Internal.
type Error struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error of kind. The text is for administrators: it names the
// thing and says what to do.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}

// KindOf is the kind of the Error in err's chain, Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// ErrNotRunning: nobody listens on the socket.
var ErrNotRunning = errors.New("ggated-virstor is not running")
