package virstor

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/ondisk"
)

// condition is what has gone wrong with an open volume, and how far it has ended. An
// opened volume is in no state; several may meet, in one word that is read without a
// lock. A state never brings about another later than in the same step.
//
//	state      meaning                              brings    ends with            forbids
//	degraded   a map sector may hold what memory    -         rewritten, unless    allocate, renumber,
//	           does not                                       frozen               start job, mark clean, hand back
//	keeping    chunks are locked or unusable: such  degraded  rewritten, unless    what degraded does;
//	           a sector may name them                         frozen               nobody gets those chunks
//	stranded   component 0 takes no writes, and     -         component 0 has    what in doubt and
//	           nothing is written to it             left               degraded do, write map
//	in doubt   nobody knows which record or list    -         reopening, or        write metadata, change members, renumber,
//	           of members is in force                         component 0 has left start job, mark clean, hand back
//	frozen     in doubt, and what is written to     in doubt, reopening            write map, and what in doubt
//	           the map now could be lost            degraded                       and degraded do
//	unlisted   component 0 may hold a list of       -         the next rise        mark clean, hand back
//	           members that was taken back
//	closing    Close or Stop has begun              -         never                change members, renumber, hold
//	given up   chunks were let go whose place is    -         never                acknowledge write
//	           not known; only while closing
//
// Reads are forbidden by none, nor are writes to chunks that are allocated, but by given
// up.
type condition struct {
	word   atomic.Uint32
	broken bool                  // nothing is forbidden: a rule that tests break
	reason atomic.Pointer[error] // why it is in doubt; set before the state, and not changed while it lasts
	wreck  atomic.Pointer[error] // as reason, of why it is stranded
	ails   atomic.Pointer[error] // as reason, of why it is degraded, by what happened last
}

// state is one state of a condition, or several.
type state uint32

const (
	stateDegraded state = 1 << iota
	stateKeeping
	stateStranded
	stateInDoubt
	stateFrozen
	stateUnlisted
	stateClosing
	stateGivenUp
)

var stateNames = [...]string{"degraded", "keeping", "stranded", "in doubt", "frozen", "unlisted", "closing", "given up"}

// String names the states.
func (s state) String() string {
	var names []string
	for i, name := range stateNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "well"
	}
	return strings.Join(names, ", ")
}

// deed is something that states forbid: it is the states that do.
type deed state

const (
	deedAllocate         = deed(stateDegraded | stateStranded)                                // give a chunk a place, or another one
	deedWriteMap         = deed(stateFrozen | stateStranded)                                  // a map sector
	deedWriteMetadata    = deed(stateInDoubt | stateStranded)                                 // the extension record too
	deedChangeMembers    = deed(stateInDoubt | stateStranded | stateClosing)                  // or raise their generation
	deedRenumber         = deed(stateDegraded | stateStranded | stateInDoubt | stateClosing)  // chunks that are kept are known by their component's index
	deedStartJob         = deed(stateDegraded | stateStranded | stateInDoubt)                 // that changes something; closing is told apart
	deedMarkClean        = deed(stateDegraded | stateStranded | stateInDoubt | stateUnlisted) // as closed in order
	deedHandBack         = deed(stateDegraded | stateStranded | stateInDoubt | stateUnlisted) // to the kernel class
	deedHold             = deed(stateClosing)                                                 // a write that finds no space, or waits for Activate
	deedAcknowledgeWrite = deed(stateGivenUp)                                                 // the next start may find the chunk elsewhere
)

// is reports whether the condition is in all of s.
func (c *condition) is(s state) bool { return state(c.word.Load())&s == s }

// allows reports whether no state forbids d.
func (c *condition) allows(d deed) bool { return c.word.Load()&uint32(d) == 0 || c.broken }

// refusal is nil when no state forbids d, and otherwise why: ErrClosed, what doubt or
// freeze was told (an ErrUnfinished), an ErrStranded, or an ErrDegraded that says what
// could not be written.
func (c *condition) refusal(d deed) error {
	s := state(c.word.Load())
	switch by := s & state(d); {
	case by == 0, c.broken:
		return nil
	case by&stateClosing != 0:
		return ErrClosed
	case by&stateInDoubt != 0, s&stateFrozen != 0 && by&stateGivenUp == 0:
		return *c.reason.Load()
	case by&stateStranded != 0:
		return *c.wreck.Load()
	case by&stateUnlisted != 0:
		return ErrUnfinished
	}
	if ails := c.ails.Load(); ails != nil {
		return *ails
	}
	return ErrDegraded
}

// degrade: because of err a map sector may hold something else than memory. Of err the
// text alone is kept: what is refused later was not refused by a disk.
func (c *condition) degrade(err error) {
	err = fmt.Errorf("%w: %v", ErrDegraded, err)
	c.ails.Store(&err)
	c.word.Or(uint32(stateDegraded))
}

// keep: chunks are kept from all until the sector that may name them is known.
func (c *condition) keep() { c.word.Or(uint32(stateKeeping | stateDegraded)) }

// rewritten: every map sector holds what memory does, durably, and what was kept is
// of use again. What is frozen stays as it is.
func (c *condition) rewritten() {
	for {
		old := c.word.Load()
		if state(old)&stateFrozen != 0 || c.word.CompareAndSwap(old, old&^uint32(stateDegraded|stateKeeping)) {
			return
		}
	}
}

// doubt: an operation failed half way because of err, and nobody knows what is in
// force. It returns what refuses the deeds from now on, unless there was doubt before,
// whose reason stays.
func (c *condition) doubt(err error) error { return c.unsure(err, stateInDoubt) }

// freeze is doubt of a kind that one outcome would lose what is written to component 0
// from now on.
func (c *condition) freeze(err error) error {
	return c.unsure(err, stateFrozen|stateInDoubt|stateDegraded)
}

func (c *condition) unsure(err error, s state) error {
	err = fmt.Errorf("%w: %w", ErrUnfinished, err)
	if !c.is(stateInDoubt) {
		c.reason.Store(&err)
	}
	c.word.Or(uint32(s))
	return err
}

// unlist: component 0 may hold another list of members than memory. Nobody who is in the
// one alone has data.
func (c *condition) unlist() { c.word.Or(uint32(stateUnlisted)) }

// listed: component 0 holds the list that memory does.
func (c *condition) listed() { c.word.And(^uint32(stateUnlisted)) }

// strand: component 0, of that name, is not written to any more. It reports whether that
// was so before.
func (c *condition) strand(name string) bool {
	if !c.is(stateStranded) {
		err := fmt.Errorf("%s: %w", name, ErrStranded)
		c.wreck.Store(&err)
	}
	return c.enter(stateStranded)
}

// ashore: component 0 is written to again, as it may have been before.
func (c *condition) ashore() { c.word.And(^uint32(stateStranded)) }

// handedOn: another component is number 0, with a map and a record that are known, and
// that of before has left: what was not known of its sectors does not matter any more.
// What is frozen stays as it is.
func (c *condition) handedOn() {
	for {
		old := c.word.Load()
		if state(old)&stateFrozen != 0 ||
			c.word.CompareAndSwap(old, old&^uint32(stateDegraded|stateKeeping|stateStranded|stateInDoubt)) {
			return
		}
	}
}

// enter reports whether the condition was in s before.
func (c *condition) enter(s state) bool { return state(c.word.Or(uint32(s)))&s == s }

// close begins the end, and reports whether it had not begun.
func (c *condition) close() bool { return !c.enter(stateClosing) }

// giveUp: from now on chunks are let go whose place is not known. It reports false, and
// changes nothing, when the volume does not close: such a chunk stays locked then.
func (c *condition) giveUp() bool {
	if !c.is(stateClosing) { // which never ends
		return false
	}
	c.word.Or(uint32(stateGivenUp))
	return true
}

// doubtLocked notes that a write to component 0 failed of which nobody knows what it
// left, and that one outcome would lose what is written from now on. Until the volume is
// reopened no map sector, no extension record and no metadata is written any more.
// v.metaMu is held and the committer is paused.
func (v *Volume) doubtLocked(err error) error {
	return v.cond.freeze(err)
}

// mayChangeLocked refuses what changes metadata while it is not known what that is, or
// while an operation is half done. A list of members that could not be taken back before
// is taken back first. v.metaMu is held.
func (v *Volume) mayChangeLocked() error {
	if err := v.cond.refusal(deedWriteMetadata); err != nil {
		return err
	}
	if err := v.relistLocked(); err != nil {
		return err
	}
	if k := v.meta.ext.rec.Intent.Kind; v.meta.ext.room && k != ondisk.IntentNone {
		return fmt.Errorf("%w: %q", ErrUnfinished, k)
	}
	return nil
}
