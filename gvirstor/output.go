package main

import (
	"io"
	"sync"
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

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
