package disktest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// faults is what a disk does wrong.
type faults struct {
	gone atomic.Bool

	mu        sync.Mutex
	injectors []*injector
	barriers  []*barrier
}

type injector struct{ fail func(Op) error }

// barrier holds the first request that it is for.
type barrier struct {
	wants   func(Op) bool
	reached chan struct{}
	open    chan struct{}
}

// Partial is what an injected function returns for a request that is done in
// part and then fails: its first Done bytes, rounded down to whole sectors.
type Partial struct {
	Done int64
	Err  error
}

func (p Partial) Error() string { return p.Err.Error() }
func (p Partial) Unwrap() error { return p.Err }

// Completed is a request that is done in full and yet reported as failed.
func Completed(err error) error { return Partial{Done: 1<<63 - 1, Err: err} }

func isCompleted(err error) bool {
	var part Partial
	return errors.As(err, &part) && part.Done > 0
}

// Inject calls f before each request but CachedRead and Close; an error fails
// the request, undone unless it is a Partial. All are asked, and the error
// of the first counts. remove takes f out again.
func (d *Disk) Inject(f func(Op) error) (remove func()) {
	in := &injector{f}
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.injectors = append(d.faults.injectors, in)
	return func() {
		d.faults.mu.Lock()
		defer d.faults.mu.Unlock()
		d.faults.injectors = without(d.faults.injectors, in)
	}
}

// FailNth fails the nth request of the kind from now on, 1 being the next.
func (d *Disk) FailNth(k Kind, n int64, err error) (remove func()) {
	var count atomic.Int64
	return d.Inject(func(op Op) error {
		if op.Kind == k && count.Add(1) == n {
			return err
		}
		return nil
	})
}

// FailFrom fails the nth request of the kind from now on and all after it.
func (d *Disk) FailFrom(k Kind, n int64, err error) (remove func()) {
	var count atomic.Int64
	return d.Inject(func(op Op) error {
		if op.Kind == k && count.Add(1) >= n {
			return err
		}
		return nil
	})
}

// FailRange fails every request of the kind that touches [off, off+length).
func (d *Disk) FailRange(k Kind, off, length int64, err error) (remove func()) {
	return d.Inject(func(op Op) error {
		if op.Kind == k && op.Off < off+length && off < op.Off+op.Len {
			return err
		}
		return nil
	})
}

// Heal removes all that was injected. What is held stays so.
func (d *Disk) Heal() {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.injectors = nil
}

// Gone makes every request fail with ENXIO, as if the disk had been pulled
// out, until Back. The disk keeps its cache.
func (d *Disk) Gone() { d.faults.gone.Store(true) }

// Back ends Gone.
func (d *Disk) Back() { d.faults.gone.Store(false) }

// Block holds the next request of the kind before it does anything. reached is
// closed when it is held; release lets it go on, or no longer waits for it.
func (d *Disk) Block(k Kind) (reached <-chan struct{}, release func()) {
	return d.BlockWhen(func(op Op) bool { return op.Kind == k })
}

// BlockWhen is Block for the next request that wants says true for.
func (d *Disk) BlockWhen(wants func(Op) bool) (reached <-chan struct{}, release func()) {
	g := &barrier{wants: wants, reached: make(chan struct{}), open: make(chan struct{})}
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.barriers = append(d.faults.barriers, g)
	return g.reached, sync.OnceFunc(func() {
		d.faults.mu.Lock()
		defer d.faults.mu.Unlock()
		d.faults.barriers = without(d.faults.barriers, g)
		close(g.open)
	})
}

// begin counts op and lets it pass its faults. It returns how many bytes of op
// are to be done, and what op is to return.
func (d *Disk) begin(op Op) (int64, error) {
	d.mustFit(op)
	d.counts[op.Kind].Add(1)
	if g := d.faults.barrierFor(op); g != nil {
		close(g.reached)
		<-g.open
	}
	if d.faults.gone.Load() {
		return 0, d.goneError()
	}
	err := d.faults.injected(op)
	if err == nil {
		return op.Len, nil
	}
	var part Partial
	if errors.As(err, &part) {
		part.Done = max(0, min(part.Done, op.Len))
		part.Done -= part.Done % int64(d.sector)
	}
	return part.Done, fmt.Errorf("%s: %s: %w", d.name, op, err)
}

func (f *faults) barrierFor(op Op) *barrier {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.barriers {
		if g.wants(op) {
			f.barriers = without(f.barriers, g)
			return g
		}
	}
	return nil
}

func (f *faults) injected(op Op) error {
	f.mu.Lock()
	ins := f.injectors
	f.mu.Unlock()
	var first error
	for _, in := range ins {
		if err := in.fail(op); first == nil {
			first = err
		}
	}
	return first
}

// without returns a new list, because the old one may be in use.
func without[T comparable](list []T, gone T) []T {
	var rest []T
	for _, x := range list {
		if x != gone {
			rest = append(rest, x)
		}
	}
	return rest
}
