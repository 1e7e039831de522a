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

// Code says what failed more closely than a Kind, where clients decide by it.
type Code string

// The codes. A failure that is none of these has none.
const (
	ProviderNotFound  Code = "provider_not_found"  // there is no provider of that name
	ProviderTooSmall  Code = "provider_too_small"  // to be a component or a spare
	SectorSizeDiffers Code = "sector_size_differs" // from that of the volume
	AlreadyComponent  Code = "already_component"   // of the volume
	HoldsData         Code = "holds_data"          // a file system, a label, …: nothing is taken without force
	Unanswered        Code = "unanswered"          // who had the request ended before the answer
	NotBegun          Code = "not_begun"           // nobody has had the request: it can be made again
)

// Error is a failure as the daemon tells it. Backends return it (wrapped or not) to
// choose the kind; any other error is Internal.
type Error struct {
	Kind Kind   `json:"kind"`
	Code Code   `json:"code,omitempty"`
	Text string `json:"text"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error of kind. The text is for administrators: it names the
// thing and says what to do.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// WithCode is e with a code.
func (e *Error) WithCode(c Code) *Error {
	coded := *e
	coded.Code = c
	return &coded
}

// KindOf is the kind of the Error in err's chain, Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// CodeOf is the code of the Error in err's chain, empty when there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// ErrNotRunning: nobody listens on the socket.
var ErrNotRunning = errors.New("ggated-virstor is not running")
