package options

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/tests/manual"
)

func TestTheManualHasEveryOptionAndNoOther(t *testing.T) {
	page, err := manual.Read("../../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "option", page.Items("Fl"), flagsOf(t), func(f *pflag.Flag) string {
		if f.Shorthand != "" {
			return f.Shorthand
		}
		return "-" + f.Name
	})
	declared := flagsOf(t)
	for name := range page.Flags("ggated-virstor") {
		// gvirstor(8), which has options with letters, is spoken of as well.
		if len(name) > 1 && declared.Lookup(name[1:]) == nil {
			t.Errorf("option %s of the manual does not exist", name)
		}
	}
}

func TestTheManualHasEveryKeyAndNoOther(t *testing.T) {
	page, err := manual.Read("../../man/ggated-virstor.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "key", page.Items("Cm"), keySet(flagsOf(t)), func(f *pflag.Flag) string { return f.Name })
}

func TestTheManualSaysWhichKeysAReloadApplies(t *testing.T) {
	page, err := manual.Read("../../man/ggated-virstor.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	begin, end := slices.Index(page, "keys take effect at once:"), slices.IndexFunc(page, func(l string) bool {
		return strings.HasPrefix(l, "All others need a restart")
	})
	if begin < 0 || end < begin {
		t.Fatal("the list is not there")
	}
	var said []string
	for _, line := range page[begin+1 : end] {
		said = append(said, strings.Fields(line)[1])
	}
	if !slices.Equal(said, liveKeys) {
		t.Errorf("the manual names %q, a reload applies %q", said, liveKeys)
	}
	for _, key := range liveKeys {
		if flagsOf(t).Lookup(key) == nil {
			t.Errorf("%s is no key", key)
		}
	}
}

// compare compares the items of a manual with flags, which it calls by name.
func compare(t *testing.T, what string, items map[string]manual.Page, flags *pflag.FlagSet, name func(*pflag.Flag) string) {
	t.Helper()
	flags.VisitAll(func(f *pflag.Flag) {
		n := name(f)
		if _, ok := items[n]; !ok {
			t.Errorf("%s %s is not in the manual", what, n)
		}
		delete(items, n)
	})
	for n := range items {
		t.Errorf("%s %s of the manual does not exist", what, n)
	}
}
