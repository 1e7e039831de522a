package geomlib

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// ErrScheme means that no Opener is known for the scheme of a name.
var ErrScheme = errors.New("no such kind of provider is known")

// Opener opens the providers of one kind. Its methods may be called by many goroutines
// at once.
type Opener interface {
	// Open opens the provider of that name, which has its scheme still. Options that
	// mean nothing for the kind are ignored, except that ReadOnly must hold and that,
	// without NoLock, ErrLocked is due to whoever comes second.
	Open(name string, o OpenOptions) (Provider, error)
	// Adopt makes a provider of what Passable.Descriptor told of one that another
	// process opened by name. The provider owns f from then on; after an error f is the
	// caller's still. ErrNotSupported: providers of this kind are never passed on.
	Adopt(f *os.File, name string, state []byte, o OpenOptions) (Provider, error)
}

// Connector is implemented by Openers of what is reached by connections, so that one
// process can connect for another that must not.
type Connector interface {
	// Connect returns a new connection to the provider of that name, and what else
	// whoever uses it needs. The file is the caller's.
	Connect(ctx context.Context, name string) (f *os.File, state []byte, err error)
}

// Registry opens providers by their names: those that have a scheme by the Opener of
// that scheme, all others by that of "", or as Files does. The zero value knows no schemes. It is filled
// where a program begins, and handed to whoever opens by name; once it is in use it
// must not be changed.
type Registry map[string]Opener

// Open opens the provider called name. ErrScheme: nothing here opens such names.
func (r Registry) Open(name string, o OpenOptions) (Provider, error) {
	by, err := r.opener(name)
	if err != nil {
		return nil, err
	}
	return by.Open(name, o)
}

// OpenOwn is Open for a process that runs other programs and may have closed the same provider
// just now: a child has it open, and locked, until it executes its program. ErrLocked only once that
// was waited for, ownPatience; the context ends the wait.
func (r Registry) OpenOwn(ctx context.Context, name string, o OpenOptions) (Provider, error) {
	var p Provider
	err := WhileLocked(ctx, ownPatience, func() (err error) {
		p, err = r.Open(name, o)
		return err
	})
	return p, err
}

// ownPatience is enough for a child on a busy machine, and little beside a start.
const ownPatience = time.Second

// WhileLocked repeats try while that returns ErrLocked, for patience at most, or until the context
// is done. It returns what try returned last.
func WhileLocked(ctx context.Context, patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if !errors.Is(err, ErrLocked) || !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// Adopt makes a provider of what Passable.Descriptor told of one that another process
// opened by name (ErrScheme). The provider owns f from then on; after an error f is the
// caller's still.
func (r Registry) Adopt(f *os.File, name string, state []byte, o OpenOptions) (Provider, error) {
	by, err := r.opener(name)
	if err != nil {
		return nil, err
	}
	return by.Adopt(f, name, state, o)
}

// Connect returns a new connection to the provider of that name (ErrScheme), as
// Connector's does. ErrNotSupported: such providers are not reached by connections.
func (r Registry) Connect(ctx context.Context, name string) (f *os.File, state []byte, err error) {
	by, err := r.opener(name)
	if err != nil {
		return nil, nil, err
	}
	if c, ok := by.(Connector); ok {
		return c.Connect(ctx, name)
	}
	return nil, nil, fmt.Errorf("%s: connect: %w", name, ErrNotSupported)
}

func (r Registry) opener(name string) (Opener, error) {
	scheme := Name(name).Scheme()
	if scheme == "" && r[""] == nil {
		return Files{}, nil
	}
	if by := r[scheme]; by != nil {
		return by, nil
	}
	return nil, unknownScheme(name, scheme, slices.Sorted(maps.Keys(r)))
}

// unknownScheme names what could have been meant.
func unknownScheme(name, scheme string, known []string) error {
	var more strings.Builder
	for _, s := range slices.DeleteFunc(known, func(s string) bool { return s == "" }) {
		fmt.Fprintf(&more, ", %s://", s)
	}
	return fmt.Errorf("%s: scheme %q: %w: known are paths of files and devices, names below /dev%s",
		name, scheme, ErrScheme, more.String())
}

// Files is the Opener of regular files and of devices, whose names have no scheme.
type Files struct {
	Direct bool   // as OpenOptions.Direct, of all
	Rings  *Rings // as OpenOptions.Rings
}

func (by Files) options(o OpenOptions) OpenOptions {
	o.Direct = o.Direct || by.Direct
	if o.Rings == nil {
		o.Rings = by.Rings
	}
	return o
}

// Open implements Opener.
func (by Files) Open(name string, o OpenOptions) (Provider, error) {
	return Open(name, by.options(o))
}

// Adopt implements Opener.
func (by Files) Adopt(f *os.File, name string, _ []byte, o OpenOptions) (Provider, error) {
	return FromFile(f, name, by.options(o))
}
