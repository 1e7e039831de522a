package main

import (
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
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

func TestTheManualHasEveryReasonForWhichAVolumeOrAProviderIsLeftAlone(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(page, "\n")
	stale := virstor.NewOutsider("v", virstor.Member{Provider: disktest.New("p", 512, 512)}, virstor.ErrStale, 0).Error()
	stranger := virstor.NewOutsider("v", virstor.Member{Provider: disktest.New("p", 512, 512)}, virstor.ErrStranger, 0).Error()
	for reason, sentence := range map[string]string{"a stale component": stale, "no member": stranger} {
		if !strings.Contains(sentence, reason) {
			t.Errorf("%q says no %q", sentence, reason)
		}
		if !strings.Contains(text, ".Em "+reason) {
			t.Errorf("%q is not in the manual", reason)
		}
	}
	for _, reason := range []error{virstor.ErrIncomplete, virstor.ErrDuplicate, virstor.ErrDamaged, virstor.ErrHistories, virstor.ErrDamagedMember} {
		if !strings.Contains(text, ".Em "+reason.Error()) {
			t.Errorf("%q is not in the manual", reason)
		}
	}
}
