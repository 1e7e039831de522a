package options

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// refused is why the value of an option is refused, in words that need no more: they
// name the option.
type refused struct{ error }

func (r *refused) Unwrap() error { return r.error }

// refuse words a refusal.
func refuse(format string, args ...any) error { return &refused{fmt.Errorf(format, args...)} }

// asRefused finds the refusal in err, without what a parser of flags says around it. It
// is nil when there is none.
func asRefused(err error) error {
	var r *refused
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// word is a value of an option and what it means.
type word[T comparable] struct {
	text string
	is   T
}

// choice is the value of an option that is one of some words. It implements
// encoding.TextMarshaler and TextUnmarshaler.
type choice[T comparable] struct {
	option string
	is     *T
	words  []word[T] // where several mean the same, the first is what is shown
}

// chooseVar makes a flag of an option whose default is the first of words.
func chooseVar[T comparable](f *pflag.FlagSet, is *T, option string, words []word[T], usage string) {
	*is = words[0].is
	c := choice[T]{option, is, words}
	f.TextVar(&c, option, c, usage)
}

func (c choice[T]) MarshalText() ([]byte, error) {
	for _, w := range c.words {
		if w.is == *c.is {
			return []byte(w.text), nil
		}
	}
	return nil, refuse("--%s: %v has no word", c.option, *c.is)
}

func (c choice[T]) UnmarshalText(text []byte) error {
	var known []string
	for _, w := range c.words {
		if w.text == string(text) {
			*c.is = w.is
			return nil
		}
		known = append(known, w.text)
	}
	return refuse("--%s %s: one of %s is needed", c.option, text, strings.Join(known, ", "))
}

// size is the value of an option in bytes, written as expand_number(3) reads it. It
// implements encoding.TextMarshaler and TextUnmarshaler.
type size struct {
	option string
	bytes  *int64 // 0: none was said
	unset  bool   // it need not be said
}

// sizeVar makes a flag of an option that is a size. Without a default it may be empty.
func sizeVar(f *pflag.FlagSet, bytes *int64, option string, byDefault int64, usage string) {
	*bytes = byDefault
	s := size{option, bytes, byDefault == 0}
	f.TextVar(&s, option, s, usage)
}

// MarshalText has the largest suffix that leaves a whole number.
func (s size) MarshalText() ([]byte, error) {
	n, suffix := *s.bytes, ""
	if n == 0 {
		return nil, nil
	}
	for _, larger := range []string{"k", "m", "g", "t", "p", "e"} {
		if n%1024 != 0 {
			break
		}
		n, suffix = n/1024, larger
	}
	return []byte(strconv.FormatInt(n, 10) + suffix), nil
}

func (s size) UnmarshalText(text []byte) error {
	if len(text) == 0 && s.unset {
		*s.bytes = 0
		return nil
	}
	n, err := control.ExpandNumber(string(text))
	if err != nil || n <= 0 {
		return refuse("--%s %s: a size such as 64m is needed", s.option, text)
	}
	*s.bytes = n
	return nil
}

// reserve is the value of --reserve: a number of chunks, or auto. It implements
// encoding.TextMarshaler and TextUnmarshaler.
type reserve struct{ chunks *int64 }

func (r reserve) MarshalText() ([]byte, error) {
	if *r.chunks == virstor.ReserveAuto {
		return []byte("auto"), nil
	}
	return strconv.AppendInt(nil, *r.chunks, 10), nil
}

func (r reserve) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*r.chunks = virstor.ReserveAuto
		return nil
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < 0 {
		return refuse("--reserve %s: auto or a number of chunks is needed", text)
	}
	*r.chunks = n
	return nil
}

// list is the value of an option that may be said more than once. Each is read when it
// is said, so that the line of a file that is wrong is known.
type list[T any] struct {
	to    *[]T
	texts []string
	read  func(text string) (T, error)
}

// listVar makes a flag of an option that may be said more than once; read words what is
// wrong with one.
func listVar[T any](f *pflag.FlagSet, to *[]T, option string, read func(text string) (T, error), usage string) {
	f.Var(&list[T]{to: to, read: read}, option, usage)
}

// Set implements pflag.Value, by adding to those that there are.
func (l *list[T]) Set(text string) error { return l.Append(text) }

// Append implements pflag.SliceValue.
func (l *list[T]) Append(text string) error {
	one, err := l.read(text)
	if err != nil {
		return &refused{err}
	}
	*l.to, l.texts = append(*l.to, one), append(l.texts, text)
	return nil
}

// Replace implements pflag.SliceValue.
func (l *list[T]) Replace(texts []string) error {
	*l.to, l.texts = nil, nil
	for _, text := range texts {
		if err := l.Append(text); err != nil {
			return err
		}
	}
	return nil
}

// GetSlice implements pflag.SliceValue.
func (l *list[T]) GetSlice() []string { return slices.Clone(l.texts) }

// Type implements pflag.Value.
func (l *list[T]) Type() string { return "list" }

func (l *list[T]) String() string {
	if len(l.texts) == 0 {
		return ""
	}
	return fmt.Sprintf("%q", l.texts)
}

// bounded is a value that is refused where right finds it wrong.
type bounded struct {
	pflag.Value
	right func() error
}

// Set implements pflag.Value.
func (b bounded) Set(text string) error {
	if err := b.Value.Set(text); err != nil {
		return err
	}
	return b.right()
}

// bound has a flag refuse what right finds wrong. is what the flag sets, and need says
// what it must be.
func bound[T any](f *pflag.FlagSet, option string, is *T, right func(T) bool, need string) {
	flag := f.Lookup(option)
	flag.Value = bounded{flag.Value, func() error {
		if !right(*is) {
			return refuse("--%s %v: %s", option, *is, need)
		}
		return nil
	}}
}

// notNegative is bound for numbers and times.
func notNegative[T ~int | ~int64](f *pflag.FlagSet, option string, is *T) {
	bound(f, option, is, func(n T) bool { return n >= 0 }, "must not be negative")
}
