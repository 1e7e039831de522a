package member

import (
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// claimsOf are the claims of w in the order of their names.
func claimsOf(w world) (claims []Claim, names []string) {
	_, names = w.judge()
	for _, n := range names {
		d := w[n]
		c := Claim{Metadata: d.m}
		if d.m.No == 0 && d.m.Version == ondisk.VersionFenced && d.rec.Sequence > 0 {
			c.Record = &d.rec
		}
		claims = append(claims, c)
	}
	return claims, names
}

// kept is what History leaves of w for the disk of that name.
func kept(w world, of string) world {
	claims, names := claimsOf(w)
	left := world{}
	for i, in := range History(claims, slices.Index(names, of)) {
		if in {
			left[names[i]] = w[names[i]]
		}
	}
	return left
}

func TestTheHistoryOfAMemberIsTheWholeOfItsVolume(t *testing.T) {
	states := 0
	for _, op := range operations() {
		crashes(op.before.with(op.beside), op.phases, func(at string, w world) {
			whole, err := w.verdict()
			v, names := w.judge()
			if err != nil || !v.Blocks {
				return
			}
			for i, n := range v.Members {
				if v.Failed[i] || !w[names[n]].m.Member.Exists() {
					continue
				}
				states++
				if got, err := kept(w, names[n]).verdict(); err != nil || got != whole {
					t.Errorf("%s, %s: the history of %s is %q (%v), the volume is %q", op.name, at, names[n], got, err, whole)
				}
			}
		})
	}
	if states < 100 {
		t.Errorf("%d states", states)
	}
}

func TestOfTwoHistoriesOneIsLeft(t *testing.T) {
	base := settled("ABC", 7)
	for _, times := range []uint64{1, 4} {
		w := world{}
		for n, d := range base {
			mine, theirs := d, d
			mine.m.Member.Generation, mine.m.Member.Settled = 8, 8
			mine.m.Member.Nonce, mine.m.Member.SettledNonce = 5008, 5008
			theirs.m.Member.Generation, theirs.m.Member.Settled = 7+times, 7+times
			theirs.m.Member.Nonce, theirs.m.Member.SettledNonce = 6000+times, 6000+times
			w["a"+n], w["b"+n] = mine, theirs
		}
		for _, n := range []string{"aA", "aB", "bA", "bC"} {
			want := n[:1] + "A" + n[:1] + "B" + n[:1] + "C"
			if got, err := kept(w, n).verdict(); err != nil || got != want {
				t.Errorf("%d times: of %s: %q, %v", times, n, got, err)
			}
		}
	}
}

func TestWithoutComponent0NobodyIsCalledStale(t *testing.T) {
	w := settled("ABC", 7)
	delete(w, "A")
	v, _ := w.judge()
	if v.Err == nil || slices.Contains(v.Outside, Stale) || !slices.Contains(v.Outside, Unjudged) || !slices.Equal(v.Missing, []int{0}) {
		t.Errorf("%+v", v)
	}
}
