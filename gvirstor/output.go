package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
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

// printJSON prints a, which is an object of JSON, indented.
func printJSON(w io.Writer, a any) error {
	text, err := control.MarshalJSON(a)
	if err != nil {
		return failf("Can't print JSON: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, append(text, '\n'), "", "  "); err != nil {
		return failf("Can't print JSON: %w", err)
	}
	return writeJSON(w, b.Bytes())
}

func writeJSON(w io.Writer, text []byte) error {
	if _, err := w.Write(text); err != nil {
		return failf("Can't print JSON: %w", err)
	}
	return nil
}

// oneLine is text in one line, where a line is one event: a name in it must not pass for
// another.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }

// printJSONLine prints a, which is an object of JSON, in one line.
func printJSONLine(w io.Writer, a any) error {
	text, err := control.MarshalJSON(a)
	if err != nil {
		return failf("Can't print JSON: %w", err)
	}
	return writeJSON(w, append(text, '\n'))
}

// humanize is humanize_number(3) as geom(8) calls it for sizes: four
// characters at most, powers of 1024, one decimal below 10.
func humanize(n int64) string {
	const (
		limit  = 1000 // what three digits do not hold
		letter = "BKMGTPE"
		// 9.95 and more is rounded to 10, which has no decimal.
		cut = 973 // .95 of 1024, rounded up
	)
	quotient, rest, scale := n, int64(0), 0
	for scale < len(letter)-1 && (quotient >= limit || quotient == limit-1 && rest >= 512) {
		quotient, rest = quotient/1024, quotient%1024
		scale++
	}
	if scale > 0 && (quotient < 9 || quotient == 9 && rest < cut) {
		tenths := (rest*10 + 512) / 1024
		return fmt.Sprintf("%d.%d%c", quotient+tenths/10, tenths%10, letter[scale])
	}
	return fmt.Sprintf("%d%c", quotient+(rest+512)/1024, letter[scale])
}
