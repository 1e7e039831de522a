package options

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// policyOptions are the options that every volume can have its own of.
type policyOptions struct {
	whenFull    string
	fullTimeout time.Duration
	heldMemory  string
	alloc       string
	zero        string
	zeroAhead   int
	discard     string
	zeroes      bool
}

// declarePolicies makes the flags of policyOptions.
func (o *policyOptions) declarePolicies(f *pflag.FlagSet) {
	f.StringVar(&o.whenFull, "when-full", "wait", "what a write finds when no chunk is free: `wait|error`")
	f.DurationVar(&o.fullTimeout, "full-timeout", 0, "fail a waiting write after `TIME`, such as 90s (0: never)")
	f.StringVar(&o.heldMemory, "held-memory", "64m", "hold at most `SIZE` of data of waiting writes for each volume")
	f.StringVar(&o.alloc, "alloc", "fill", "give new chunks from component after component, or from all in turn: `fill|spread`")
	f.StringVar(&o.zero, "zero", "auto", "zero new chunks where they are not written: `auto|never`")
	f.IntVar(&o.zeroAhead, "zero-ahead", 8, "zero the next `N` chunks to be allocated while the volume is idle (0: none)")
	f.StringVar(&o.discard, "discard", "on", "what discards do: free chunks, only pass them down, nothing: `on|passdown-only|off`")
	f.BoolVar(&o.zeroes, "detect-zeroes", false, "treat writes of nothing but zeros as write zeroes: they allocate nothing, and free what they cover")
}

// word is a value of an option and what it means to the engine.
type word[T any] struct {
	text string
	is   T
}

var (
	whenFullWords = []word[virstor.FullPolicy]{{"wait", virstor.Wait}, {"error", virstor.Fail}}
	allocWords    = []word[virstor.AllocOrder]{{"fill", virstor.Fill}, {"spread", virstor.Spread}}
	zeroWords     = []word[virstor.ZeroPolicy]{{"auto", virstor.ZeroAuto}, {"never", virstor.ZeroNever}}
	discardWords  = []word[virstor.DiscardPolicy]{{"on", virstor.DiscardOn}, {"passdown-only", virstor.DiscardPassdown}, {"off", virstor.DiscardOff}}
)

// meaning looks the value of an option up.
func meaning[T any](option, value string, words []word[T]) (T, error) {
	var known []string
	for _, w := range words {
		if w.text == value {
			return w.is, nil
		}
		known = append(known, w.text)
	}
	var none T
	return none, badValue(option, value, known...)
}

func badValue(option, value string, want ...string) error {
	return fmt.Errorf("--%s %s: one of %s is needed", option, value, strings.Join(want, ", "))
}

// Policies are the options that concern the engine, for volumes that have none of their
// own in PerVolume.
func (o *Options) Policies() (c virstor.Config, err error) {
	c = virstor.Config{ReadOnly: o.ReadOnly, FullTimeout: o.fullTimeout, Reserve: o.reserve, DetectZeroes: o.zeroes, ZeroAhead: o.zeroAhead}
	if c.WhenFull, err = meaning("when-full", o.whenFull, whenFullWords); err != nil {
		return c, err
	}
	if c.Alloc, err = meaning("alloc", o.alloc, allocWords); err != nil {
		return c, err
	}
	if c.Zero, err = meaning("zero", o.zero, zeroWords); err != nil {
		return c, err
	}
	if c.Discard, err = meaning("discard", o.discard, discardWords); err != nil {
		return c, err
	}
	if o.zeroAhead < 0 {
		return c, fmt.Errorf("--zero-ahead %d: must not be negative", o.zeroAhead)
	}
	c.HeldLimit, err = control.ExpandNumber(o.heldMemory)
	if err != nil || c.HeldLimit <= 0 {
		return c, fmt.Errorf("--held-memory %s: a size such as 64m is needed", o.heldMemory)
	}
	if o.fullTimeout < 0 {
		return c, fmt.Errorf("--full-timeout %s: must not be negative", o.fullTimeout)
	}
	return c, nil
}
