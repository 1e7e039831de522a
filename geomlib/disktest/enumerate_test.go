package disktest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// firsts returns the first byte of each sector of the disks.
func firsts(t testing.TB, disks []*Disk) string {
	var s []string
	for _, d := range disks {
		b, digits := read(t, d, 0, int(d.size)), ""
		for i := 0; i < len(b); i += d.sector {
			digits += fmt.Sprint(b[i])
		}
		s = append(s, digits)
	}
	return strings.Join(s, "/")
}

// twoDisks records two disks of two sectors, with a mark at position 3.
func twoDisks(t testing.TB) *Recorder {
	a, b := New("a", 1024, 512), New("b", 1024, 512)
	mustWrite(t, a, 0, fill(512, 9)) // before the recording
	mustFlush(t, a)
	rec := Record(a, b)
	mustWrite(t, a, 0, fill(1024, 1))
	mustWrite(t, b, 0, fill(1024, 2))
	mustFlush(t, a)
	rec.Mark("promised")
	mustWrite(t, b, 512, fill(512, 3))
	return rec
}

func TestPowerLossesAreExactlyTheStatesThatCanBe(t *testing.T) {
	rec := twoDisks(t)
	for _, c := range []struct {
		k    int
		tear Tear
		want string
	}{
		{0, Whole, "90/00"},
		{1, Whole, "90/00 11/00"},
		{1, Prefix, "90/00 10/00 11/00"},
		{1, AnySectors, "90/00 10/00 91/00 11/00"},
		{2, Whole, "90/00 11/00 90/22 11/22"},
		{3, Whole, "11/00 11/22"},
		{4, Prefix, "11/00 11/20 11/22"},
		{5, Whole, "11/00 11/22 11/03 11/23"},
		{5, AnySectors, "11/00 11/20 11/02 11/22 11/03 11/23 11/03 11/23"},
	} {
		var got []string
		for i := range rec.Count(c.k, c.tear) {
			got = append(got, firsts(t, rec.State(c.k, rec.PowerLoss(c.k, c.tear, i).Pick)))
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("at %d, tear %d:\n got %s\nwant %s", c.k, c.tear, got, c.want)
		}
	}
}

func TestPowerLossesCoverEveryPositionUpToTheLimit(t *testing.T) {
	rec := twoDisks(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		tear  Tear
		limit uint64
		want  string
	}{
		{Whole, 100, "1 2 4 2 2 4"},
		{AnySectors, 100, "1 4 16 4 4 8"},
		{AnySectors, 5, "1 4 5 4 4 5"},
	} {
		var count [6]int
		seen := make(map[string]bool)
		for l := range rec.PowerLosses(c.tear, c.limit, rng) {
			count[l.At]++
			seen[fmt.Sprintf("%d %s", l.At, firsts(t, rec.State(l.At, l.Pick)))] = true
		}
		if got := strings.Trim(fmt.Sprint(count), "[]"); got != c.want {
			t.Errorf("tear %d, limit %d: %s losses, want %s", c.tear, c.limit, got, c.want)
		}
		for _, extreme := range []string{"2 90/00", "2 11/22", "5 11/00", "5 11/23"} {
			if !seen[extreme] {
				t.Errorf("tear %d, limit %d: never left %s", c.tear, c.limit, extreme)
			}
		}
	}
	for range rec.PowerLosses(Whole, 100, rng) {
		break // may be left at any time
	}
}

func TestPowerLossTellsWhatItKept(t *testing.T) {
	rec := twoDisks(t)
	for number, want := range map[uint64]string{
		0: "power lost at 5; of disk 0 kept; of disk 1 kept",
		6: "power lost at 5; of disk 0 kept; of disk 1 kept #0[512:1024] #1[0:512]",
	} {
		if got := rec.PowerLoss(5, AnySectors, number).String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestLossesBeyondCountingAreSaidToBe(t *testing.T) {
	d := New("d", 1<<40, 512)
	rec := Record(d)
	if err := d.Delete(0, 1<<40); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, d, 0, fill(63*512, 1))
	if n := rec.Count(1, AnySectors); n != math.MaxUint64 {
		t.Errorf("any sectors: %d", n)
	}
	if n := rec.Count(1, Prefix); n != 1<<31+1 {
		t.Errorf("prefixes: %d", n)
	}
	if n := rec.Count(2, Prefix); n != (1<<31+1)*64 {
		t.Errorf("prefixes of two: %d", n)
	}
}
