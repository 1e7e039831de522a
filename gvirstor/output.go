package main

import (
	"io"
	"sync"

	"github.com/gvirstor/gvirstor/ondisk"
)

// output remembers whether what was printed went out: on a full disk a list that
// was cut short must not look whole. It is safe for concurrent use as far as w is.
type output struct {
	w io.Writer

	mu  sync.Mutex
	err error // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		o.mu.Lock()
		if o.err == nil {
			o.err = err
		}
		o.mu.Unlock()
	}
	return n, err
}

// shown escapes what a terminal would obey. Each text is written whole.
type shown struct{ w io.Writer }

func (s shown) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, ondisk.PrintableText(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
