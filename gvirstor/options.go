package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// options are a verb's, parsed by pflag and judged in geom(8)'s manner.
type options struct{ set *pflag.FlagSet }

// flag declares -short and --long. short is empty where there is no such.
func (o *options) flag(p *bool, short, long string) {
	f := o.set.VarPF(&flagValue{p: p}, long, short, "")
	f.NoOptDefVal = "true"
}

// verboseFlag declares -v, which most of the original's verbs have.
func (o *options) verboseFlag(c *call) { o.flag(&c.verbose, "v", "verbose") }

// number declares an option that takes a number as expand_number(3) reads it. *p is
// its default.
func (o *options) number(p *int64, short, long string) {
	o.set.VarP(&numberValue{p: p}, long, short, "")
}

// text declares an option that takes any text.
func (o *options) text(p *string, long string) { o.set.Var(&textValue{p: p}, long, "") }

// letterText is text with a letter besides.
func (o *options) letterText(p *string, short, long string) {
	o.set.VarP(&textValue{p: p}, long, short, "")
}

var errTwice = errors.New("specified twice")

type flagValue struct {
	p    *bool
	seen bool
}

func (v *flagValue) Set(s string) error {
	if v.seen {
		return errTwice
	}
	if s != "true" && s != "false" {
		return control.ErrNumber
	}
	v.seen, *v.p = true, s == "true"
	return nil
}
func (v *flagValue) String() string { return "" }
func (v *flagValue) Type() string   { return "bool" }

type numberValue struct {
	p    *int64
	seen bool
}

func (v *numberValue) Set(s string) error {
	if v.seen {
		return errTwice
	}
	n, err := control.ExpandNumber(s)
	if err != nil {
		return err
	}
	v.seen, *v.p = true, n
	return nil
}
func (v *numberValue) String() string { return "" }
func (v *numberValue) Type() string   { return "number" }

type textValue struct {
	p    *string
	seen bool
}

func (v *textValue) Set(s string) error {
	if v.seen {
		return errTwice
	}
	v.seen, *v.p = true, s
	return nil
}
func (v *textValue) String() string { return "" }
func (v *textValue) Type() string   { return "string" }

// declare makes the options of cmd alone, which set what is cmd's and c's.
func declare(cmd *command, c *call) *options {
	o := &options{pflag.NewFlagSet(cmd.name, pflag.ContinueOnError)}
	if cmd.options != nil {
		cmd.options(o)
	}
	if cmd.verbose {
		o.verboseFlag(c)
	}
	if cmd.tellsResult() {
		o.flag(&c.json, "", "json")
	}
	return o
}

// tellsResult reports whether --json is given to have the result told, and not of cmd's
// own.
func (cmd *command) tellsResult() bool {
	return cmd.verbose && !strings.Contains(cmd.operands, "--json")
}

// parse reads cmd's options and returns the operands. errHelp: --help was given.
func (c *call) parse(cmd *command, args []string) ([]string, error) {
	o := declare(cmd, c)
	set := o.set
	set.SetInterspersed(false) // options come before operands, as with getopt(3)
	set.Usage = func() {}
	var help bool
	o.flag(&help, "", "help")
	socket := c.socket
	o.text(&socket, "control")
	// pflag lets what looks like an option of `go test` pass.
	for _, a := range args {
		if strings.HasPrefix(a, "-test.") {
			return nil, &usageError{"illegal option -- t"}
		}
		if !strings.HasPrefix(a, "-") {
			break
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, optionError(err)
	}
	if help {
		return nil, errHelp
	}
	if set.Changed("control") {
		c.socket, c.socketNamed = socket, true
	}
	return set.Args(), nil
}

// optionError puts what pflag found wrong into getopt(3)'s and geom(8)'s words.
func optionError(err error) error {
	var (
		unknown *pflag.NotExistError
		noValue *pflag.ValueRequiredError
		value   *pflag.InvalidValueError
	)
	switch {
	case errors.Is(err, pflag.ErrHelp): // -h where it is not declared
		return errHelp
	case errors.As(err, &unknown):
		if unknown.GetSpecifiedShortnames() == "" {
			return &usageError{fmt.Sprintf("unrecognized option '--%s'", unknown.GetSpecifiedName())}
		}
		return &usageError{"illegal option -- " + unknown.GetSpecifiedName()}
	case errors.As(err, &noValue):
		return &usageError{"option requires an argument -- " + noValue.GetSpecifiedName()}
	case errors.As(err, &value):
		f := value.GetFlag()
		name := f.Shorthand
		if name == "" {
			name = f.Name
		}
		if errors.Is(err, errTwice) {
			return &usageError{fmt.Sprintf("Option '%s' specified twice.", name)}
		}
		why := "Invalid argument"
		if errors.Is(err, control.ErrNumberRange) {
			why = "Result too large"
		}
		return failf("Invalid value for '%s' argument: %s", name, why)
	}
	return &usageError{err.Error()}
}
