package virstor

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// transitions are all that changes a condition.
var transitions = map[string]func(*condition){
	"degrade":   func(c *condition) { c.degrade(syscall.EIO) },
	"keep":      (*condition).keep,
	"rewritten": (*condition).rewritten,
	"doubt":     func(c *condition) { _ = c.doubt(syscall.EIO) },
	"freeze":    func(c *condition) { _ = c.freeze(syscall.EIO) },
	"unlist":    (*condition).unlist,
	"listed":    (*condition).listed,
	"strand":    func(c *condition) { c.strand("d0") },
	"ashore":    (*condition).ashore,
	"handed on": (*condition).handedOn,
	"close":     func(c *condition) { c.close() },
	"give up":   func(c *condition) { c.giveUp() },
}

var deeds = map[string]deed{
	"allocate": deedAllocate, "write map": deedWriteMap, "write metadata": deedWriteMetadata,
	"change members": deedChangeMembers, "renumber": deedRenumber, "start job": deedStartJob,
	"mark clean": deedMarkClean, "hand back": deedHandBack, "hold": deedHold, "acknowledge": deedAcknowledgeWrite,
}

// inState is a condition in s.
func inState(s state) *condition {
	c := new(condition)
	if s&stateInDoubt != 0 {
		_ = c.doubt(syscall.ENXIO)
	}
	if s&stateStranded != 0 {
		c.strand("d0")
	}
	c.word.Store(uint32(s))
	return c
}

// What is wrong with the disks, whether the list of members is known, and how far the
// volume has ended change without each other: every state of each is tried with every
// state of the others.
func TestEveryTransitionOfACondition(t *testing.T) {
	const (
		well = state(0)
		d    = stateDegraded
		dk   = stateDegraded | stateKeeping
		u    = stateInDoubt
		f    = stateFrozen | u | d
		c    = stateClosing
		g    = stateClosing | stateGivenUp
		l    = stateUnlisted
	)
	type row map[string]state
	health := map[state]row{
		well:             {"degrade": d, "keep": dk, "rewritten": well, "doubt": u, "freeze": f},
		d:                {"degrade": d, "keep": dk, "rewritten": well, "doubt": u | d, "freeze": f},
		dk:               {"degrade": dk, "keep": dk, "rewritten": well, "doubt": u | dk, "freeze": f | dk},
		u:                {"degrade": u | d, "keep": u | dk, "rewritten": u, "doubt": u, "freeze": f},
		u | d:            {"degrade": u | d, "keep": u | dk, "rewritten": u, "doubt": u | d, "freeze": f},
		u | dk:           {"degrade": u | dk, "keep": u | dk, "rewritten": u, "doubt": u | dk, "freeze": f | dk},
		f:                {"degrade": f, "keep": f | dk, "rewritten": f, "doubt": f, "freeze": f},
		f | stateKeeping: {"degrade": f | dk, "keep": f | dk, "rewritten": f | dk, "doubt": f | dk, "freeze": f | dk},
	}
	// Whether component 0 is written to changes without them, but with its leaving.
	for h, hs := range health {
		hs["strand"], hs["ashore"], hs["handed on"] = h|stateStranded, h, well
		if h&stateFrozen != 0 {
			hs["handed on"] = h
		}
	}
	for h, hs := range maps.Clone(health) {
		s := make(row)
		for name, to := range hs {
			s[name] = to | stateStranded
		}
		s["ashore"], s["handed on"] = h, well
		if h&stateFrozen != 0 {
			s["handed on"] = h | stateStranded
		}
		health[h|stateStranded] = s
	}
	list := map[state]row{
		well: {"unlist": l, "listed": well},
		l:    {"unlist": l, "listed": well},
	}
	end := map[state]row{
		well: {"close": c, "give up": well},
		c:    {"close": c, "give up": g},
		g:    {"close": g, "give up": g},
	}
	tried := 0
	for h, hs := range health {
		for m, ms := range list {
			for e, es := range end {
				want := make(row)
				for _, part := range []struct {
					changes row
					rest    state
				}{{hs, m | e}, {ms, h | e}, {es, h | m}} {
					for name, to := range part.changes {
						want[name] = to | part.rest
					}
				}
				for name, do := range transitions {
					to, ok := want[name]
					if !ok {
						t.Fatalf("the table does not know %q", name)
					}
					c := inState(h | m | e)
					do(c)
					if got := state(c.word.Load()); got != to {
						t.Errorf("%v, then %s: %v, want %v", h|m|e, name, got, to)
					}
					tried++
				}
			}
		}
	}
	if tried != 16*2*3*len(transitions) {
		t.Errorf("%d transitions tried", tried)
	}
}

func TestWhatAConditionForbids(t *testing.T) {
	for s, forbidden := range map[state]string{
		0:                            "",
		stateDegraded:                "allocate, renumber, start job, mark clean, hand back",
		stateDegraded | stateKeeping: "allocate, renumber, start job, mark clean, hand back",
		stateStranded:                "allocate, write map, write metadata, change members, renumber, start job, mark clean, hand back",
		stateInDoubt:                 "write metadata, change members, renumber, start job, mark clean, hand back",
		stateFrozen | stateInDoubt | stateDegraded: "allocate, write map, write metadata, change members, renumber, start job, mark clean, hand back",
		stateUnlisted:               "mark clean, hand back",
		stateClosing:                "change members, renumber, hold",
		stateClosing | stateGivenUp: "change members, renumber, hold, acknowledge",
	} {
		c := inState(s)
		list := strings.Split(forbidden, ", ")
		for name, d := range deeds {
			want := true
			for _, f := range list {
				want = want && f != name
			}
			if got := c.allows(d); got != want {
				t.Errorf("%v: %s is allowed: %v, want %v", s, name, got, want)
			}
		}
	}
}

func TestWhyAConditionForbids(t *testing.T) {
	for _, o := range []struct {
		s    state
		d    deed
		want error
	}{
		{stateDegraded, deedAllocate, ErrDegraded},
		{stateDegraded | stateInDoubt, deedAllocate, ErrDegraded},
		{stateDegraded | stateInDoubt, deedRenumber, ErrUnfinished}, // which lasts longer
		{stateDegraded | stateInDoubt | stateFrozen, deedAllocate, ErrUnfinished},
		{stateDegraded | stateInDoubt | stateFrozen, deedWriteMap, syscall.ENXIO},
		{stateInDoubt, deedWriteMetadata, syscall.ENXIO},
		{stateUnlisted, deedMarkClean, ErrUnfinished},
		{stateUnlisted | stateDegraded, deedHandBack, ErrUnfinished},
		{stateStranded, deedWriteMetadata, ErrStranded},
		{stateStranded | stateDegraded, deedAllocate, ErrTakesNoWrites}, // with what ends it
		{stateStranded | stateInDoubt, deedWriteMetadata, syscall.ENXIO},
		{stateStranded, deedHandBack, ErrStranded},
		{stateInDoubt | stateClosing, deedChangeMembers, ErrClosed},
		{stateClosing | stateGivenUp, deedAcknowledgeWrite, ErrDegraded},
		{stateDegraded | stateInDoubt | stateFrozen | stateClosing | stateGivenUp, deedAcknowledgeWrite, ErrDegraded},
	} {
		if err := inState(o.s).refusal(o.d); !errors.Is(err, o.want) {
			t.Errorf("%v: %v, want %v", o.s, err, o.want)
		}
	}
}

func TestTheFirstReasonForDoubtStays(t *testing.T) {
	var c condition
	if err := c.doubt(syscall.ENOSPC); !errors.Is(err, ErrUnfinished) || !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if err := c.freeze(syscall.EIO); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := c.refusal(deedWriteMap); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
}

func TestAConditionIsClosedOnce(t *testing.T) {
	var c condition
	if c.giveUp() {
		t.Error("a chunk is let go in a volume that does not close")
	}
	if !c.close() || c.close() || !c.giveUp() {
		t.Error("the first close begins the end, and no other")
	}
}

// invariant tells what is wrong with c, which was in old.
func invariant(c *condition, old state) string {
	s := state(c.word.Load())
	const forGood = stateFrozen | stateClosing | stateGivenUp
	switch {
	case s&stateFrozen != 0 && !c.is(stateInDoubt|stateDegraded):
		return "frozen, but not in doubt and degraded"
	case s&stateKeeping != 0 && !c.is(stateDegraded):
		return "chunks are kept, but it is not degraded"
	case s&stateGivenUp != 0 && !c.is(stateClosing):
		return "given up, but not closing"
	case old&forGood&^s != 0:
		return "over, which never ends: " + (old & forGood &^ s).String()
	case c.reason.Load() == nil && c.is(stateInDoubt):
		return "doubt without a reason"
	}
	for name, d := range deeds {
		err := c.refusal(d)
		if (err == nil) != c.allows(d) {
			return "allows and refusal differ on " + name
		}
		if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrDegraded) && !errors.Is(err, ErrUnfinished) && !errors.Is(err, ErrStranded) {
			return name + ": " + err.Error()
		}
	}
	return ""
}

func TestAConditionStaysSoundWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c condition
		for _, name := range rapid.SliceOf(rapid.SampledFrom([]string{
			"degrade", "keep", "rewritten", "doubt", "freeze", "unlist", "listed", "strand", "ashore", "handed on", "close", "give up",
		})).Draw(t, "transitions") {
			old := state(c.word.Load())
			transitions[name](&c)
			if why := invariant(&c, old); why != "" {
				t.Fatalf("%v, then %s: %s", old, name, why)
			}
		}
	})
}

func TestAMapThatIsRewrittenWhileItFreezesStaysFrozen(t *testing.T) {
	for range 1000 {
		var c condition
		var wg sync.WaitGroup
		for _, name := range []string{"keep", "rewritten", "freeze", "close", "give up"} {
			wg.Go(func() { transitions[name](&c) })
		}
		wg.Wait()
		if why := invariant(&c, 0); why != "" || !c.is(stateFrozen|stateClosing) {
			t.Fatalf("%v: %s", state(c.word.Load()), why)
		}
	}
}
