package member

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// disk is what the sectors of one provider hold that are judged.
type disk struct {
	m   ondisk.Metadata
	rec ondisk.Extension // of version 2, of whoever is component 0
}

type world map[string]disk

// write changes sectors of one disk. An empty change clears the label.
type write struct {
	disk   string
	change func(*disk)
}

// phase is what is written without order, and then flushed.
type phase []write

// crashes calls emit with every state that a crash can leave: after every subset of the
// writes of every phase.
func crashes(w world, phases []phase, emit func(string, world)) {
	w = maps.Clone(w)
	for n, p := range phases {
		for subset := range 1 << len(p) {
			s := maps.Clone(w)
			var done []string
			for i, wr := range p {
				if subset&(1<<i) != 0 {
					s.apply(wr)
					done = append(done, wr.disk)
				}
			}
			emit(fmt.Sprintf("phase %d: %s", n+1, strings.Join(done, ",")), s)
		}
		for _, wr := range p {
			w.apply(wr)
		}
	}
	emit("end", w)
}

func (w world) apply(wr write) {
	d := w[wr.disk]
	wr.change(&d)
	w[wr.disk] = d
}

func (w world) with(other world) world {
	w = maps.Clone(w)
	maps.Copy(w, other)
	return w
}

// judge: names are the disks in the order in which they are judged.
func (w world) judge() (Verdict, []string) {
	var claims []Claim
	var names []string
	for _, n := range slices.Sorted(maps.Keys(w)) {
		d := w[n]
		if d.m.Version == 0 {
			continue // cleared
		}
		c := Claim{Metadata: d.m}
		if d.m.No == 0 && d.m.Version == ondisk.VersionFenced && d.rec.Sequence > 0 {
			c.Record = &d.rec
		}
		claims, names = append(claims, c), append(names, n)
	}
	return Judge(claims), names
}

// verdict is the members of a set in one word, or why there is none. A set without
// blocks is taken by index, as those rules do.
func (w world) verdict() (string, error) {
	v, names := w.judge()
	if v.Err != nil {
		return "", v.Err
	}
	if !v.Blocks {
		return w.unmarked(v, names)
	}
	s := ""
	for _, i := range v.Members {
		s += names[i]
	}
	return s, nil
}

func (w world) unmarked(v Verdict, names []string) (string, error) {
	if v.Zero < 0 {
		return "", ErrMissing
	}
	at := make([]string, w[names[v.Zero]].m.Count)
	for i, n := range names {
		if no := int(w[n].m.No); v.Outside[i] == 0 && no < len(at) {
			at[no] += n
		}
	}
	if slices.ContainsFunc(at, func(s string) bool { return len(s) != 1 }) {
		return "", ErrMissing
	}
	return strings.Join(at, ""), nil
}

func idOf(name byte) uint64 { return uint64(name) }

func listOf(names string) uint64 {
	var ids []uint64
	for i := range len(names) {
		ids = append(ids, idOf(names[i]))
	}
	return ondisk.MemberList(ids)
}

// settled is a healthy set of generation g, all of it settled.
func settled(names string, g uint64) world {
	w := world{}
	for i := range len(names) {
		d := disk{m: ondisk.Metadata{Version: ondisk.VersionFenced, No: uint16(i), Count: uint16(len(names)),
			// Room for the record.
			ChunkSize: 1 << 20, VirtualSize: 1 << 30, ChunkReserved: 2, ProviderSize: 1 << 30, Member: ondisk.MemberBlock{
				ID: idOf(names[i]), Generation: g, Settled: g, List: listOf(names), Nonce: 1000 + g, SettledNonce: 1000 + g,
			}}}
		if i == 0 {
			d.rec.Sequence = 1
		}
		w[names[i:i+1]] = d
	}
	return w
}

// rise is the two steps to generation g of a set whose list becomes names; those of
// joined are new. skip takes no writes.
func rise(names string, g uint64, joined, skip string) []phase {
	old, oldNonce := g-1, 1000+g-1
	if old == 0 {
		oldNonce = 0
	}
	var first, commit, rest, second phase
	for i := range len(names) {
		n := names[i : i+1]
		if n == skip {
			continue
		}
		w := write{n, func(d *disk) {
			d.m.Version, d.m.No, d.m.Count = ondisk.VersionFenced, uint16(i), uint16(len(names))
			d.m.Member = ondisk.MemberBlock{ID: idOf(n[0]), Generation: g, Settled: old, List: listOf(names), Nonce: 1000 + g, SettledNonce: oldNonce}
		}}
		switch {
		case strings.Contains(joined, n):
			first = append(first, w)
		case i == 0:
			commit = append(commit, w)
		default:
			rest = append(rest, w)
		}
		second = append(second, write{n, func(d *disk) { d.m.Member.Settled, d.m.Member.SettledNonce = g, 1000+g }})
	}
	return []phase{first, commit, rest, second}
}

func record(name string, change func(*ondisk.Extension)) phase {
	return phase{{name, func(d *disk) { d.rec.Sequence++; change(&d.rec) }}}
}

func gone(name string) phase { return phase{{name, func(d *disk) { *d = disk{} }}} }

func unmarkedSet(names string, version uint32) world {
	w := settled(names, 1)
	for n, d := range w {
		d.m.Version, d.m.Member, d.rec = version, ondisk.MemberBlock{}, ondisk.Extension{}
		w[n] = d
	}
	return w
}

// handBack takes the blocks off, component 0's last.
func handBack(names string) []phase {
	ps := []phase{record(names[:1], func(e *ondisk.Extension) { e.HandBack = true })}
	for i := len(names) - 1; i >= 0; i-- {
		ps = append(ps, phase{{names[i : i+1], func(d *disk) {
			d.m.Version, d.m.Member, d.rec = ondisk.Version, ondisk.MemberBlock{}, ondisk.Extension{}
		}}})
	}
	return ps
}

type operation struct {
	name   string
	before world
	phases []phase
	right  []string // sets that may be accepted
	beside world    // providers that are there all the time
}

func join(parts ...[]phase) []phase { return slices.Concat(parts...) }

func operations() []operation {
	removeB := ondisk.Intent{Kind: ondisk.IntentRemove, Arg: [8]uint64{1, 2}, Leaves: idOf('B'), Moves: idOf('C')}
	removeC := ondisk.Intent{Kind: ondisk.IntentRemove, Arg: [8]uint64{2, 2}, Leaves: idOf('C'), Moves: idOf('C')}
	done := func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} }
	fails := func(name byte, g uint64) func(*ondisk.Extension) {
		return func(e *ondisk.Extension) { e.Failed[0] = ondisk.FailedMember{ID: idOf(name), Generation: g} }
	}
	abc, base := []string{"ABC"}, settled("ABC", 7)
	oldRemoved := settled("AXC", 57)
	delete(oldRemoved, "A")
	delete(oldRemoved, "C")
	handOn := rise("BC", 8, "", "")
	handOn[1] = phase{{"B", func(d *disk) {
		handOn[1][0].change(d)
	}}}
	return []operation{
		{"open", base, rise("ABC", 8, "", ""), abc, nil},
		{"add", base, rise("ABCD", 8, "D", ""), []string{"ABC", "ABCD"}, nil},
		{"remove the last", base, join([]phase{record("A", func(e *ondisk.Extension) { e.Intent = removeC })}, rise("AB", 8, "", ""), []phase{record("A", done), gone("C")}), []string{"AB", "ABC"}, nil},
		{"remove the last without a record", base, join(rise("AB", 8, "", ""), []phase{gone("C")}), []string{"AB", "ABC"}, nil},
		{"remove a middle one", base, join([]phase{record("A", func(e *ondisk.Extension) { e.Intent = removeB })}, rise("AC", 8, "", ""), []phase{record("A", done), gone("B")}), []string{"AC", "ABC"}, nil},
		{"remove a middle one that is dead", base, join([]phase{record("A", func(e *ondisk.Extension) { e.Intent = removeB })}, rise("AC", 8, "", ""), []phase{record("A", done)}), []string{"AC", "ABC"}, nil},
		{"remove a middle one, the last takes no writes", base, join([]phase{
			record("A", func(e *ondisk.Extension) { e.Intent = removeB }),
			record("A", fails('C', 7))}, rise("AC", 8, "", "C"), []phase{record("A", done), gone("B")}), []string{"AC", "ABC"}, nil},
		{"hand back", base, handBack("ABC"), abc, nil},
		{"first fence", unmarkedSet("ABC", ondisk.Version), join([]phase{record("A", func(*ondisk.Extension) {})}, rise("ABC", 1, "", "")), abc, nil},
		{"blocks for the first release's", unmarkedSet("ABC", ondisk.VersionFenced), join([]phase{record("A", func(*ondisk.Extension) {})}, rise("ABC", 1, "", "")), abc, nil},
		{"open with a member that takes no writes", base, join([]phase{record("A", fails('B', 7))}, rise("ABC", 8, "", "B")), abc, nil},
		{"open when it takes writes again", base.with(world{"B": settled("ABC", 5)["B"], "A": func() disk {
			d := base["A"]
			fails('B', 5)(&d.rec)
			return d
		}()}), join(rise("ABC", 8, "", ""), []phase{record("A", func(e *ondisk.Extension) { e.Failed = [4]ondisk.FailedMember{} })}), abc, nil},
		{"open beside a disk removed long ago, of a higher generation", settled("ABC", 1), rise("ABC", 2, "", ""), abc, oldRemoved},
		{"open beside an earlier component 0", settled("ABC", 1), rise("ABC", 2, "", ""), abc, world{"X": settled("XYZ", 57)["X"]}},
		{"open beside an older copy of B", base, rise("ABC", 8, "", ""), abc, world{"b": settled("ABC", 6)["B"]}},
		{"open beside an older copy of A", base, rise("ABC", 8, "", ""), abc, world{"a": settled("ABC", 6)["A"]}},
		{"open beside a version-1 copy of B", base, rise("ABC", 8, "", ""), abc, world{"b": unmarkedSet("ABC", 1)["B"]}},
		{"open beside a version-1 copy of A", base, rise("ABC", 8, "", ""), abc, world{"a": unmarkedSet("ABC", 1)["A"]}},
		{"component 0 is handed on and leaves", base, handOnAndLeave("BC", "A", false), []string{"BC", "ABC"}, nil},
		{"component 0 is handed on and leaves, dead", base, handOnAndLeave("BC", "A", true), []string{"BC", "ABC"}, nil},
		{"component 0 is handed on, the last takes its place", base, handOnAndLeave("CB", "A", false), []string{"CB", "ABC"}, nil},
		{"the only component is replaced, dead", settled("A", 7), handOnAndLeave("D", "A", true), []string{"D", "A"}, nil},
		{"component 0 is replaced by a new one, dead", base, handOnAndLeave("DBC", "A", true), []string{"DBC", "ABC"}, nil},
	}
}

// handOnAndLeave makes the first of names component 0 and takes the former one out.
func handOnAndLeave(names, former string, dead bool) []phase {
	r := rise(names, 8, "", "")
	zero := names[:1]
	write0 := r[1][0]
	ps := []phase{{{zero, func(d *disk) {
		// Its record, in an area that nobody reads before it is component 0.
		d.rec = ondisk.Extension{Sequence: 2, Intent: ondisk.Intent{Kind: ondisk.IntentReplaceZero, Leaves: idOf(former[0]), Moves: idOf(zero[0])}}
		if dead {
			d.rec.Failed[0] = ondisk.FailedMember{ID: idOf(former[0]), Generation: 7}
		}
	}}}, {write0}}
	ps = append(ps, r[2], r[3])
	if dead {
		return append(ps, record(zero, func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} }))
	}
	return append(ps, gone(former), record(zero, func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} }))
}

// The heart: whatever subset of what was not flushed reached the disks, the true set is
// accepted, and nothing else is.
func TestNoHealthySetIsRefusedAndNoWrongOneAccepted(t *testing.T) {
	states := 0
	for _, o := range operations() {
		crashes(o.before, o.phases, func(at string, w world) {
			states++
			got, err := w.with(o.beside).verdict()
			if err != nil || !slices.Contains(o.right, got) {
				t.Errorf("%s, %s: %q, %v", o.name, at, got, err)
			}
		})
	}
	t.Logf("%d states", states)
}

// A second crash, at any moment of the opening that finishes the first.
func TestASecondCrashChangesNothing(t *testing.T) {
	states := 0
	for _, o := range operations() {
		crashes(o.before, o.phases, func(at string, w world) {
			v, names := w.judge()
			if v.Err != nil || !v.Blocks || o.name == "hand back" {
				return
			}
			set, next := "", v.Highest+1
			for _, i := range v.Members {
				set += names[i]
			}
			ps := opening(w, set, v, next)
			crashes(w, ps, func(at2 string, w2 world) {
				states++
				if got, err := w2.with(o.beside).verdict(); err != nil || got != set {
					t.Errorf("%s, %s, then %s: %q, %v, want %s", o.name, at, at2, got, err, set)
				}
			})
		})
	}
	t.Logf("%d states", states)
}

// opening is the rise to generation g of what v accepted.
func opening(w world, set string, v Verdict, g uint64) []phase {
	skip := ""
	for i, failed := range v.Failed {
		if failed {
			skip = set[i : i+1]
		}
	}
	ps := rise(set, g, "", skip)
	for _, p := range ps[:3] {
		for i, wr := range p {
			p[i].change = func(d *disk) {
				wr.change(d)
				d.m.Member.Settled, d.m.Member.SettledNonce = v.Settled, v.Nonce
			}
		}
	}
	return ps
}

func TestAWrongSetIsRefused(t *testing.T) {
	b := settled("ABC", 8)
	fork := func(g uint64) disk {
		d := settled("ABC", g)["A"]
		d.m.Member.Nonce, d.m.Member.SettledNonce = 5000+g, 5000+g
		return d
	}
	foreign := settled("QRS", 99)
	handedBack := unmarkedSet("ABC", ondisk.Version)
	tests := []struct {
		name string
		w    world
		want error
	}{
		{"an older copy of component 0", b.with(world{"A": settled("ABC", 7)["A"]}), ErrMissing},
		{"older copies of the others", b.with(world{"B": settled("ABC", 7)["B"], "C": settled("ABC", 7)["C"]}), ErrMissing},
		{"a clone's component 0, opened as often", b.with(world{"A": fork(8)}), ErrHistories},
		{"a clone's component 0, opened more often", b.with(world{"A": fork(9)}), ErrMissing},
		{"a copy of B of label's time", b.with(world{"B": unmarkedSet("ABC", 1)["B"]}), ErrMissing},
		{"a copy of A of label's time", b.with(world{"A": unmarkedSet("ABC", 1)["A"]}), ErrMissing},
		{"a copy of B of the first release's time", b.with(world{"B": unmarkedSet("ABC", 2)["B"]}), ErrMissing},
		{"a foreign disk in place of C", b.with(world{"C": foreign["S"]}), ErrMissing},
		{"B missing", world{"A": b["A"], "C": b["C"]}, ErrMissing},
		{"A missing", world{"B": b["B"], "C": b["C"]}, ErrMissing},
		{"a second B of the same generation", b.with(world{"b": b["B"]}), ErrTwins},
		{"a second A of the same generation", b.with(world{"a": b["A"]}), ErrTwins},
		{"two whole volumes of one id", b.with(foreign), ErrHistories},
		{"version 1 beside version 2 with A missing", world{"A": handedBack["A"], "B": b["B"], "C": b["C"]}, ErrMissing},
	}
	for _, tt := range tests {
		if got, err := tt.w.verdict(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %q, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

// roomless is a set whose label left no room for the record.
func roomless(w world) world {
	w = maps.Clone(w)
	for n, d := range w {
		d.m.VirtualSize, d.rec = d.m.VirtualSize<<10, ondisk.Extension{}
		w[n] = d
	}
	return w
}

// Version 1 beside version 2: while nothing is settled, or when component 0's record says
// that a handing back is under way, it is true; otherwise one of the two is stale.
func TestVersionOneBesideVersionTwo(t *testing.T) {
	fenced, plain := settled("ABC", 8), unmarkedSet("ABC", ondisk.Version)
	mixed := func(w world, ones string) world {
		w = maps.Clone(w)
		for _, n := range ones {
			w[string(n)] = plain[string(n)]
		}
		return w
	}
	copies := world{"a": plain["A"], "b": plain["B"], "c": plain["C"]}
	fencing := func(ones string) world {
		w := maps.Clone(fenced)
		for n, d := range w {
			d.m.Member.Generation, d.m.Member.Nonce, d.m.Member.Settled, d.m.Member.SettledNonce = 1, 1001, 0, 0
			w[n] = d
		}
		return mixed(w, ones)
	}
	handingBack := func(ones string) world {
		w := maps.Clone(fenced)
		d := w["A"]
		d.rec.HandBack = true
		w["A"] = d
		return mixed(w, ones)
	}
	tests := []struct {
		name  string
		w     world
		want  string
		err   error
		stale string // who is named as stale
	}{
		{"fencing has reached component 0", fencing("BC"), "ABC", nil, ""},
		{"fencing has reached two", fencing("C"), "ABC", nil, ""},
		{"handing back has reached the last", handingBack("C"), "ABC", nil, ""},
		{"handing back has reached all but component 0", handingBack("BC"), "ABC", nil, ""},
		{"handing back has reached all", mixed(fenced, "ABC"), "ABC", nil, ""},
		{"the last of label's time", mixed(fenced, "C"), "", ErrMissing, "C"},
		{"the middle one of label's time", mixed(fenced, "B"), "", ErrMissing, "B"},
		{"component 0 of label's time", mixed(fenced, "A"), "", ErrMissing, "BC"},
		{"a copy of label's time of the middle one beside it", fenced.with(world{"b": plain["B"]}), "ABC", nil, "b"},
		{"a copy of label's time of component 0 beside it", fenced.with(world{"a": plain["A"]}), "ABC", nil, "a"},
		{"all of version 1 beside what lacks a member", world{"A": fenced["A"], "B": fenced["B"]}.with(copies), "abc", nil, "AB"},
		{"all of version 1 beside what lacks component 0", world{"B": fenced["B"], "C": fenced["C"]}.with(copies), "abc", nil, "BC"},
		{"all of version 1 beside all of version 2", fenced.with(copies), "", ErrHistories, "abc"},
		{"the same while nothing is settled", fencing("").with(copies), "ABC", nil, "abc"},
		{"no room: handing back has reached the last", roomless(mixed(fenced, "C")), "ABC", nil, ""},
		{"no room: handing back has reached all but component 0", roomless(mixed(fenced, "BC")), "ABC", nil, ""},
		{"no room: the middle one of label's time", roomless(mixed(fenced, "B")), "", ErrMissing, "B"},
		{"no room: component 0 of label's time", roomless(mixed(fenced, "A")), "", ErrMissing, "BC"},
	}
	for _, tt := range tests {
		got, err := tt.w.verdict()
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v; want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
		v, names := tt.w.judge()
		stale := ""
		for i, k := range v.Outside {
			if k == Stale {
				stale += names[i]
			}
		}
		if stale != tt.stale {
			t.Errorf("%s: stale are %q, want %q", tt.name, stale, tt.stale)
		}
		unproven := strings.Contains(tt.name, "no room") && tt.want != ""
		if (v.Unproven != nil) != unproven {
			t.Errorf("%s: unproven are %v", tt.name, v.Unproven)
		}
	}
}

// Members that take no writes keep the indexes that they had, while others leave and their
// own change.
func TestEveryFailedMemberThatARecordCanNameIsFoundByItsId(t *testing.T) {
	for failed := 1; failed <= ondisk.MaxFailedMembers; failed++ {
		// The last ones took the places of those that left, one after the other.
		now := "A"
		for i := range failed {
			now += string("IHGF"[i])
		}
		now += "BCDE"[failed:]
		w := settled(now, 20)
		a := w["A"]
		for i := range failed {
			n := "IHGF"[i : i+1]
			d := settled("ABCDEFGHI", 8)[n]
			w[n] = d
			a.rec.Failed[i] = ondisk.FailedMember{ID: idOf(n[0]), Generation: 8}
		}
		w["A"] = a
		if got, err := w.verdict(); got != now || err != nil {
			t.Errorf("%d failed: %q, %v; want %q", failed, got, err, now)
		}
		older := settled("ABCDEFGHI", 7)["I"]
		if got, err := w.with(world{"I": older}).verdict(); !errors.Is(err, ErrMissing) {
			t.Errorf("%d failed, one of them an older copy: %q, %v", failed, got, err)
		}
	}
}

// Component 0 commits to a list. When it is written beside the others, or before those
// that join, then a crash leaves a list with somebody in it who is not there; and when
// who leaves is cleared before the rest is settled, one whom somebody still needs.
func TestTheModelNoticesEachOrderThatIsMissing(t *testing.T) {
	add := rise("ABCD", 8, "D", "")
	handOn := handOnAndLeave("BC", "A", false)
	for _, tt := range []struct {
		name   string
		phases []phase
		right  []string
	}{
		{"all of step one at once", []phase{slices.Concat(add[0], add[1], add[2]), add[3]}, []string{"ABC", "ABCD"}},
		{"component 0 before who joins", []phase{add[1], add[0], add[2], add[3]}, []string{"ABC", "ABCD"}},
		{"settled beside step one", []phase{slices.Concat(add[0], add[1], add[2], add[3])}, []string{"ABC", "ABCD"}},
		{"cleared beside the commit", []phase{slices.Concat(rise("AB", 8, "", "")[1], gone("C"))}, []string{"ABC", "AB"}},
		{"component 0 of version 1 before the others", []phase{slices.Concat(handBack("ABC")[3], handBack("ABC")[1])}, []string{"ABC"}},
		{"the record of the new component 0 after its sector", []phase{handOn[1], handOn[0]}, []string{"ABC", "BC"}},
		{"a generation without its failed member", rise("ABC", 8, "", "B"), []string{"ABC"}},
	} {
		refused := 0
		crashes(settled("ABC", 7), tt.phases, func(_ string, w world) {
			if got, err := w.verdict(); err != nil || !slices.Contains(tt.right, got) {
				refused++
			}
		})
		if refused == 0 {
			t.Errorf("%s: nothing is noticed", tt.name)
		}
	}
}
