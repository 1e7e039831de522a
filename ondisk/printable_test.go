package ondisk_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/ondisk"
)

func TestNamesAreShownAsTheyAreUnlessATerminalWouldObeyThem(t *testing.T) {
	for name, want := range map[string]string{
		"mydata":         "mydata",
		"größe-2":        "größe-2",
		"with space":     "with space",
		"\x1b[2Jx":       `"\x1b[2Jx"`,
		"a\nroot: fine":  `"a\nroot: fine"`,
		"\xff":           `"\xff"`,
		"ab\u202egnp.":   `"ab\u202egnp."`,
		"\u009b31m":      `"\u009b31m"`,
		"\x7f":           `"\x7f"`,
		"zero\u200bwide": `"zero\u200bwide"`,
		"":               "",
	} {
		if got := ondisk.Printable(name); got != want {
			t.Errorf("%q is shown as %s, want %s", name, got, want)
		}
	}
}

func TestPropertyNoTextMovesTheCursor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
		for _, got := range []string{ondisk.Printable(text), ondisk.PrintableText(text)} {
			if !utf8.ValidString(got) {
				t.Fatalf("%q", got)
			}
			for _, r := range got {
				if !strconv.IsPrint(r) && (r != '\n' && r != '\t' || got == ondisk.Printable(text)) {
					t.Fatalf("%q holds %q", got, r)
				}
			}
		}
		if again := ondisk.PrintableText(ondisk.PrintableText(text)); again != ondisk.PrintableText(text) {
			t.Fatalf("twice: %q", again)
		}
	})
}

func TestPropertyJSONStaysTheSameWhenItsTextIsShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "value")
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal([]byte(ondisk.PrintableText(string(b))), &got); err != nil || got != want {
			t.Fatalf("%q from %s: %v", got, strings.TrimSpace(string(b)), err)
		}
	})
}
