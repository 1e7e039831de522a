package virstor

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/member"
	"github.com/gvirstor/gvirstor/ondisk"
)

// OutsiderError says why a provider that names a volume takes no part in it. It wraps
// one of ErrStale, ErrStranger, ErrLeaving, ErrDamagedMember and ErrUnjudged.
type OutsiderError struct {
	Volume   string
	Provider string
	Kind     error
	// Generation is the provider's, and Settled that of the volume; 0 where there
	// is none. Began is when the provider's generation began, as the clock of the
	// host said that wrote it.
	Generation, Settled uint64
	Began               time.Time
	LastName            string // what the provider was called when it last was a member

	member uint64 // ondisk.MemberBlock.ID
}

func (e *OutsiderError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is ", ondisk.Printable(e.Provider))
	switch e.Kind {
	case ErrStale:
		fmt.Fprintf(&b, "a stale component of %s", ondisk.Printable(e.Volume))
	case ErrStranger:
		fmt.Fprintf(&b, "no member of %s, which it is labelled for", ondisk.Printable(e.Volume))
	case ErrUnjudged:
		fmt.Fprintf(&b, "labelled for %s", ondisk.Printable(e.Volume)) // that it is missing is said already
	default:
		fmt.Fprintf(&b, "labelled for %s: %v", ondisk.Printable(e.Volume), e.Kind)
	}
	switch {
	case e.Generation > 0:
		fmt.Fprintf(&b, ": of generation %d, begun %s", e.Generation, e.Began.UTC().Format("2006-01-02 15:04:05 MST"))
		if e.Settled > 0 {
			fmt.Fprintf(&b, ", the volume is at %d", e.Settled)
		}
	case e.Kind == ErrStale:
		b.WriteString(": from before the volume had generations")
	}
	if e.LastName != "" && e.LastName != e.Provider {
		fmt.Fprintf(&b, "; it was called %s", ondisk.Printable(e.LastName))
	}
	return b.String()
}

// Unwrap makes errors.Is tell the kind.
func (e *OutsiderError) Unwrap() error { return e.Kind }

var outsiderKinds = map[member.Kind]error{
	member.Stale: ErrStale, member.Stranger: ErrStranger, member.Leaving: ErrLeaving, member.Damaged: ErrDamagedMember,
	member.Unjudged: ErrUnjudged,
}

// NewOutsider is why m takes no part in a volume that has settled a generation.
func NewOutsider(volume string, m Member, kind error, settled uint64) *OutsiderError {
	b := m.Metadata.Member
	e := &OutsiderError{Volume: volume, Provider: m.Provider.Name(), Kind: kind, Generation: b.Generation, Settled: settled, LastName: b.LastName, member: b.ID}
	if b.Exists() {
		e.Began = time.Unix(b.Began, 0)
	}
	return e
}

// Outsiders are the providers that named the volume when it was opened and take no part
// in it, and members that could not be cleared when they were removed since.
func (v *Volume) Outsiders() []OutsiderError { return v.outside.all() }

// outsiders are an open volume's. They are asked for while members change, so they
// have a lock of their own.
type outsiders struct {
	mu   sync.Mutex
	list []OutsiderError
}

func (o *outsiders) add(e OutsiderError) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, e)
}

// forget takes the provider of that name off the list.
func (o *outsiders) forget(provider string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = slices.DeleteFunc(o.list, func(e OutsiderError) bool { return e.Provider == provider })
}

func (o *outsiders) all() []OutsiderError {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.list)
}
