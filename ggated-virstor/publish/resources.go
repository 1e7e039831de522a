package publish

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Resources are the descriptors that publications need and that a process which may
// open them has opened: by the kind of publication, in the order in which that takes
// them. Whoever has Resources takes them, and closes the rest. They are for one
// goroutine at a time.
type Resources map[control.PublicationKind][]*os.File

// Take takes the descriptors of a kind, which are the caller's then.
func (r Resources) Take(kind control.PublicationKind) []*os.File {
	files := r[kind]
	delete(r, kind)
	return files
}

// TakeListeners takes the descriptors of a kind, which are listening sockets, and
// closes them: the listeners have descriptors of their own. After an error nothing of
// the kind is open.
func (r Resources) TakeListeners(kind control.PublicationKind) ([]net.Listener, error) {
	var ls []net.Listener
	var errs error
	for _, f := range r.Take(kind) {
		l, err := net.FileListener(f)
		errs = errors.Join(errs, err, f.Close())
		if err == nil {
			ls = append(ls, l)
		}
	}
	if errs == nil {
		return ls, nil
	}
	for _, l := range ls {
		errs = errors.Join(errs, l.Close())
	}
	return nil, fmt.Errorf("take over the listeners of %s: %w", kind, errs)
}

// Close closes what was not taken.
func (r Resources) Close() error {
	var err error
	for kind := range r {
		for _, f := range r.Take(kind) {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
