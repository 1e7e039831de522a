package geomlib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// TreeReader reads the GEOM tree without ever waiting for the kernel longer
// than the caller wants. Its methods may be called by many goroutines at once.
type TreeReader struct {
	source func() ([]byte, error)
	one    chan struct{} // holds one element while the kernel is asked
}

// NewTreeReader makes a reader of what source returns, in the format of
// kern.geom.confxml. With nil it asks the kernel.
func NewTreeReader(source func() ([]byte, error)) *TreeReader {
	if source == nil {
		source = KernelTree
	}
	return &TreeReader{source: source, one: make(chan struct{}, 1)}
}

// tornTries is how often a tree is read that does not fit together.
const tornTries = 3

// Read returns the tree as it is at some moment after the call. ErrTreeBusy
// means that ctx ended first: the question stays with the kernel, in one
// goroutine at the most, and later calls wait for its end. ErrNotSupported means
// that the system has no GEOM.
func (r *TreeReader) Read(ctx context.Context) (*Tree, error) {
	for try := 1; ; try++ {
		b, err := r.ask(ctx)
		if err != nil {
			return nil, err
		}
		t, err := ParseTree(bytes.NewReader(b))
		if err == nil || try == tornTries || !errors.Is(err, ErrTree) {
			return t, err
		}
	}
}

func (r *TreeReader) ask(ctx context.Context) ([]byte, error) {
	type answer struct {
		b   []byte
		err error
	}
	select {
	case r.one <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrTreeBusy, ctx.Err())
	}
	answers := make(chan answer, 1)
	go func() {
		b, err := r.source()
		<-r.one
		answers <- answer{b, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, fmt.Errorf("read kern.geom.confxml: %w", a.err)
		}
		return a.b, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrTreeBusy, ctx.Err())
	}
}

// ReadTree reads the kernel's tree once. Who asks again and again should keep
// a TreeReader, which never has more than one question with the kernel.
func ReadTree(ctx context.Context) (*Tree, error) { return NewTreeReader(nil).Read(ctx) }
