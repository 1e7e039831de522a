package options

import (
	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

var (
	whenFullWords = []word[virstor.FullPolicy]{{"wait", virstor.Wait}, {"error", virstor.Fail}}
	allocWords    = []word[virstor.AllocOrder]{{"fill", virstor.Fill}, {"spread", virstor.Spread}}
	zeroWords     = []word[virstor.ZeroPolicy]{{"auto", virstor.ZeroAuto}, {"never", virstor.ZeroNever}}
	discardWords  = []word[virstor.DiscardPolicy]{{"on", virstor.DiscardOn}, {"passdown-only", virstor.DiscardPassdown}, {"off", virstor.DiscardOff}}
)

// policyOptions are the options that every volume can have its own of.
type policyOptions struct{ policies virstor.Config }

// declarePolicies makes the flags of policyOptions.
func (o *policyOptions) declarePolicies(f *pflag.FlagSet) {
	c := &o.policies
	chooseVar(f, &c.WhenFull, "when-full", whenFullWords, "what a write finds when no chunk is free: `wait|error`")
	f.DurationVar(&c.FullTimeout, "full-timeout", 0, "fail a waiting write after `TIME`, such as 90s (0: never)")
	sizeVar(f, &c.HeldLimit, "held-memory", 64<<20, "hold at most `SIZE` of data of waiting writes for each volume")
	chooseVar(f, &c.Alloc, "alloc", allocWords, "give new chunks from component after component, or from all in turn: `fill|spread`")
	chooseVar(f, &c.Zero, "zero", zeroWords, "zero new chunks where they are not written: `auto|never`")
	f.IntVar(&c.ZeroAhead, "zero-ahead", 8, "zero the next `N` chunks to be allocated while the volume is idle (0: none)")
	chooseVar(f, &c.Discard, "discard", discardWords, "what discards do: free chunks, only pass them down, nothing: `on|passdown-only|off`")
	f.BoolVar(&c.DetectZeroes, "detect-zeroes", false, "treat writes of nothing but zeros as write zeroes: they allocate nothing, and free what they cover")
}

// boundPolicies is bound of policyOptions.
func (o *policyOptions) boundPolicies(f *pflag.FlagSet) {
	notNegative(f, "full-timeout", &o.policies.FullTimeout)
	notNegative(f, "zero-ahead", &o.policies.ZeroAhead)
}

// Policies are the options that concern the engine, for volumes that have none of their
// own in PerVolume.
func (o *Options) Policies() virstor.Config {
	c := o.policies
	c.ReadOnly, c.Reserve = o.ReadOnly, o.reserve
	return c
}
