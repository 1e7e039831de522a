package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/tests/manual"
)

// declared are the options of a verb, each with its letter, if any.
func declared(cmd *command) *pflag.FlagSet {
	return declare(cmd, &call{}).set
}

func TestTheManualHasEveryVerbAndOptionAndNoOther(t *testing.T) {
	page, err := manual.Read("../man/gvirstor.8")
	if err != nil {
		t.Fatal(err)
	}
	everywhere := page.Flags(program)
	known := map[string]bool{"-control": true, "-help": true, "-version": true}
	verbs := page.Items("Cm")
	for _, cmd := range commands() {
		block, ok := verbs[cmd.name]
		delete(verbs, cmd.name)
		if !ok {
			t.Errorf("verb %s is not in the manual", cmd.name)
			continue
		}
		said := block.Flags(program)
		declared(cmd).VisitAll(func(f *pflag.Flag) {
			name := f.Shorthand
			if name == "" {
				name = "-" + f.Name
			}
			if !said[name] {
				t.Errorf("option %s of %s is not in the manual", name, cmd.name)
			}
			if !everywhere["-"+f.Name] {
				t.Errorf("the manual does not name --%s", f.Name)
			}
			delete(said, name)
			delete(said, "-"+f.Name)
			known[name], known["-"+f.Name] = true, true
		})
		for name := range said {
			t.Errorf("the manual says %s of %s, which does not have it", name, cmd.name)
		}
	}
	for verb := range verbs {
		t.Errorf("verb %s of the manual does not exist", verb)
	}
	for name := range everywhere {
		if !known[name] {
			t.Errorf("option %s of the manual does not exist", name)
		}
	}
}

// verb is a place in a format where the manual has a word of its own, or dots.
var verb = regexp.MustCompile(`%[0-9]*[a-z]`)

func TestTheManualExplainsEveryMessage(t *testing.T) {
	page, err := manual.Read("../man/gvirstor.8")
	if err != nil {
		t.Fatal(err)
	}
	messages, err := manual.Messages(".", []string{"failf", "warn"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) < 50 {
		t.Errorf("only %d messages were found", len(messages))
	}
	said := page.Diagnoses()
	for message, place := range messages {
		like := regexp.MustCompile("^" + verb.ReplaceAllString(regexp.QuoteMeta(message), ".+") + "$")
		found := false
		for item := range said {
			found = found || like.MatchString(item)
		}
		if !found {
			t.Errorf("%s: %q is not in the manual", place, message)
		}
	}
}

func TestTheManualSaysWhatToDoAboutWhoIsNoMember(t *testing.T) {
	page, err := manual.Read("../man/gvirstor.8")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(page, "\n")
	for _, code := range []check.Code{check.MemberStale, check.MemberStranger, check.MemberDamaged, check.MemberFailed,
		check.TwoHistories, check.OtherHistory, check.Unsettled, check.HandBackBegun} {
		if !strings.Contains(text, ".It ... ["+string(code)+"]") {
			t.Errorf("%s is not in the manual", code)
		}
	}
}
