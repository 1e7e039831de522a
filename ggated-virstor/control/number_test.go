package control_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"pgregory.net/rapid"
)

func TestExpandNumberIsThatOfFreeBSD15(t *testing.T) {
	good := map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "1b": 1, "1B": 1, "4k": 4 << 10, "4K": 4 << 10, "4M": 4 << 20, "3g": 3 << 30,
		"2T": 2 << 40, "5p": 5 << 50, "7e": 7 << 60, "4kb": 4 << 10, "4MB": 4 << 20, "0x10": 16, "0X1fG": 31 << 30,
		"010": 8, "010k": 8 << 10, "0xe": 14, "0x1b": 27, "+5": 5, " \t5": 5, "0e": 0,
		"9223372036854775807": 1<<63 - 1,
	}
	for s, want := range good {
		if n, err := control.ExpandNumber(s); n != want || err != nil {
			t.Errorf("%q is %d, %v; want %d", s, n, err, want)
		}
	}
	for _, s := range []string{
		"", " ", "k", "x", "1x", "4kk", "4bb", "4bk", "4k ", "4 k", "08", "0x", "0xk", "1_000", "-1", "--1", "+-1", "+ 1", "1.5g", "0b1", "0o7", "12,5", "٣",
	} {
		if n, err := control.ExpandNumber(s); !errors.Is(err, control.ErrNumber) {
			t.Errorf("%q is %d, %v; want %v", s, n, err, control.ErrNumber)
		}
	}
	for _, s := range []string{"8e", "9223372036854775808", "18446744073709551616", "16e", "18014398509481984k", "99999999999999999999999999"} {
		if n, err := control.ExpandNumber(s); !errors.Is(err, control.ErrNumberRange) {
			t.Errorf("%q is %d, %v; want %v", s, n, err, control.ErrNumberRange)
		}
	}
}

func TestExpandNumberTakesEveryNotationOfANumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<40).Draw(t, "n")
		unit := rapid.IntRange(0, 2).Draw(t, "unit")
		suffix := []string{"", "k", "M"}[unit]
		notation := rapid.SampledFrom([]string{"%d", "%#o", "%#x", "%#X"}).Draw(t, "notation")
		s := fmt.Sprintf(notation, n) + suffix
		if got, err := control.ExpandNumber(s); err != nil || got != n<<(10*unit) {
			t.Fatalf("%q is %d, %v", s, got, err)
		}
	})
}

func FuzzExpandNumber(f *testing.F) {
	f.Add("2T")
	f.Add("0x1fkb")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := control.ExpandNumber(s)
		if n < 0 {
			t.Errorf("%q is %d", s, n)
		}
		if err == nil && !strings.ContainsAny(s, "0123456789") {
			t.Errorf("%q has no digit and is %d", s, n)
		}
	})
}
