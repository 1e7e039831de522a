package main

import (
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/tests/manual"
)

func TestTheManualHasEveryVariableOfTheAlertCommandAndNoOther(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	items := page.Items("Ev")
	for _, v := range space.Environment(space.Alert{}) {
		name, _, _ := strings.Cut(v, "=")
		if _, ok := items[name]; !ok {
			t.Errorf("%s is not in the manual", name)
		}
		delete(items, name)
	}
	for name := range items {
		t.Errorf("%s of the manual does not exist", name)
	}
}

func TestTheManualExplainsEveryMessageOfTheLog(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	said, found := page.Diagnoses(), 0
	for _, dir := range []string{".", "../geomlib"} {
		messages, err := manual.Messages(dir, []string{"Info", "Warn", "Error"},
			func(value string) bool { return strings.EqualFold(value, "log") })
		if err != nil {
			t.Fatal(err)
		}
		for message, place := range messages {
			if found++; !said[message] {
				t.Errorf("%s: %q is not in the manual", place, message)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d messages were found", found)
	}
}
