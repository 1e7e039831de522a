package lease

import (
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Time is the time of this host since it was started, suspension included.
type Time = time.Duration

// patience is how many intervals after the beginning of his last writing an owner sends
// requests.
const patience = 3

// Terms are the times of a lease.
type Terms struct {
	Interval time.Duration // how often its owner writes it
	Settle   time.Duration // how long what its owner sent may take
}

// lasts is how long after its beginning a writing lets requests be sent.
func (t Terms) lasts() time.Duration { return patience * t.Interval }

// Term is how long who waits for the lease waits: until its owner has stopped, and what
// he sent is done, by the fastest of clocks.
func (t Terms) Term() time.Duration { return slower(t.lasts() + t.Settle) }

// brief is how long is waited after a writing that followed quick(1) after the look at a
// lease that was nobody's.
func (t Terms) brief() time.Duration { return t.Interval / 4 }

// quick reports whether what took d, by one clock, took less than brief by any.
func (t Terms) quick(d time.Duration) bool { return slower(d) < t.brief() }

// slower is at least d by a clock that is ten percent too slow, where this one is ten
// percent too fast.
func slower(d time.Duration) time.Duration { return (11*d + 8) / 9 }

// with is t, or of l where that is longer.
func (t Terms) with(l ondisk.Lease) Terms {
	return Terms{max(t.Interval, l.Interval), max(t.Settle, l.Settle)}
}

// Found is what was read where the lease is.
type Found struct {
	// Lease is that of the volume; the zero value: there is none.
	Lease ondisk.Lease
	// Damaged is a checksum of what is there and cannot be read, though it may be
	// somebody's; 0: it can.
	Damaged uint64
	// Metadata is a checksum of the metadata of all members, read before the lease.
	Metadata uint64
}

// free reports whether nobody has the lease.
func (f Found) free() bool { return f.Damaged == 0 && (f.Lease.Owner == 0 || f.Lease.Released) }

// Owner is whose lease it is, for people.
func (f Found) Owner() (l ondisk.Lease, known bool) { return f.Lease, f.Damaged == 0 }

// Deed is what a Machine wants to be done.
type Deed uint8

const (
	Sleep Deed = iota // until Action.At, or until Machine is told something
	Look              // read the lease, and the metadata before it
	Write             // write Action.Lease, and flush it; not if it is later than Action.At
	Fence             // have the owner of the lease fenced off
	Stop              // nothing more: see State
)

// Action is a Deed with what it needs.
type Action struct {
	Deed  Deed
	At    Time
	Lease ondisk.Lease
}

// State is how far a Machine is.
type State uint8

const (
	Looking    State = iota // at what is there
	Watching                // whether somebody else writes it
	Fencing                 // has the other one fenced off
	Checking                // that it is still the same
	Taking                  // writes its own
	Waiting                 // for others who may write theirs
	Confirming              // reads it back
	Owning                  // has it, and writes it again and again
	Refused                 // somebody else has it
	Lost                    // somebody else has it now
)

// Machine takes a lease and keeps it. It does nothing by itself: Next says what to do,
// and the other methods are told what came of it. It is a value, which can be copied.
type Machine struct {
	me    ondisk.Lease // as it was written last, or will be first
	terms Terms

	continues bool // me.Owner's lease is that of this host, which alone can have it
	hurry     bool // the other host is dead: nobody is waited for
	fences    bool // there is a way to fence another host off

	state State
	seen  Found // what was looked at last, of another
	until Time  // of Watching and Waiting
	next  Time  // of Watching the next look; of Owning the next writing
	look  Time  // when the look began that allows to write
	may   bool  // Owning: that look was the last thing done
	still bool  // seen was free

	deadline Time // requests may be sent until then
	owned    bool // there was a deadline
	breaks   rule
}

// Options are how a lease is taken.
type Options struct {
	// Continues: Lease.Owner is the random number of a lease of this host, whose locks
	// this process holds: nobody else can be that owner, and where his lease is found it
	// is continued without waiting.
	Continues bool
	// Hurry: somebody knows that the other host is dead.
	Hurry bool
	// Fences: Fence is to be asked for before another's lease is taken.
	Fences bool

	breaks rule
}

// New is a Machine that takes the lease me, of which Owner, Interval and Settle say whose
// it is, and Sequence from where it counts.
func New(me ondisk.Lease, o Options) Machine {
	return Machine{me: me, terms: Terms{me.Interval, me.Settle}, continues: o.Continues, hurry: o.Hurry, fences: o.Fences, breaks: o.breaks}
}

// State is how far it is.
func (m *Machine) State() State { return m.state }

// Seen is what keeps it from having the lease: the other's.
func (m *Machine) Seen() Found { return m.seen }

// Until is how long Watching and Waiting last.
func (m *Machine) Until() Time { return m.until }

// Deadline is until when requests may be sent; 0: not at all.
func (m *Machine) Deadline() Time {
	if m.state != Owning {
		return 0
	}
	return m.deadline
}

// Next says what to do.
func (m *Machine) Next(now Time) Action {
	switch m.state {
	case Looking, Checking, Confirming:
		return Action{Deed: Look}
	case Watching:
		return m.watch(now)
	case Fencing:
		return Action{Deed: Fence}
	case Taking:
		if now > m.latest() {
			m.state = Checking
			return Action{Deed: Look}
		}
		return m.write()
	case Waiting:
		if now < m.until {
			return Action{Deed: Sleep, At: m.until}
		}
		if m.breaks&breakReadBack != 0 {
			m.own(now)
			return m.write()
		}
		m.state = Confirming
		return Action{Deed: Look}
	case Owning:
		switch {
		case m.may && now <= m.latest():
			return m.write()
		case m.may || now >= m.next:
			return Action{Deed: Look}
		}
		return Action{Deed: Sleep, At: m.next}
	}
	return Action{Deed: Stop}
}

// watch is Next of Watching.
func (m *Machine) watch(now Time) Action {
	switch {
	case now >= m.until && m.fences:
		m.state = Fencing
		return Action{Deed: Fence}
	case now >= m.until:
		m.state = Checking
		return Action{Deed: Look}
	case now >= m.next:
		return Action{Deed: Look}
	}
	return Action{Deed: Sleep, At: min(m.next, m.until)}
}

// latest is when the lease may be written at the latest after a look.
func (m *Machine) latest() Time { return m.look + m.terms.Interval }

func (m *Machine) write() Action {
	l := m.me
	l.Sequence++
	return Action{Deed: Write, At: m.latest(), Lease: l}
}

// HasLooked tells what a look found that began at the time sent.
func (m *Machine) HasLooked(sent, now Time, f Found) {
	switch m.state {
	case Looking:
		m.meet(sent, now, f)
	case Watching:
		switch {
		case f == m.seen:
			m.next = now + m.pause()
		case !f.free() && f.Damaged == 0 && f.Lease != m.seen.Lease:
			m.seen, m.state = f, Refused
		default:
			m.meet(sent, now, f)
		}
	case Checking:
		if f == m.seen {
			m.state, m.look, m.still = Taking, sent, f.free()
			return
		}
		m.meet(sent, now, f)
	case Confirming:
		if !m.mine(f) || f.Metadata != m.seen.Metadata { // where it is may have moved
			m.meet(sent, now, f)
			return
		}
		m.own(sent)
	case Owning:
		switch {
		case m.mine(f):
			m.look, m.may = sent, true
		case m.owned:
			m.lose(sent, f)
		default:
			m.meet(sent, now, f)
		}
	}
}

// own is the end of taking: what is left is to write the lease again after the look that
// began at sent.
func (m *Machine) own(sent Time) { m.state, m.look, m.may = Owning, sent, true }

// mine reports whether the lease is the own one, or an earlier one of the same owner.
func (m *Machine) mine(f Found) bool {
	l := f.Lease
	return f.Damaged == 0 && l.Owner == m.me.Owner && !l.Released && l.Sequence <= m.me.Sequence
}

// lose ends it, since another has written.
func (m *Machine) lose(sent Time, f Found) {
	if m.breaks&breakOldMap != 0 && f.free() {
		m.look, m.may = sent, true
		return
	}
	m.seen, m.state, m.may = f, Lost, false
}

// meet begins with what a look found.
func (m *Machine) meet(sent, now Time, f Found) {
	m.seen, m.look = f, sent
	switch {
	case f.free():
		m.state, m.still = Taking, true
	case m.continues && f.Damaged == 0 && f.Lease.Owner == m.me.Owner:
		m.state, m.still = Taking, true
		m.me.Sequence = max(m.me.Sequence, f.Lease.Sequence)
	case m.hurry && m.fences:
		m.state, m.still = Fencing, false
	case m.hurry:
		m.state, m.still = Checking, false
	default:
		m.state, m.still = Watching, false
		m.until, m.next = now+m.term(), now+m.pause()
	}
}

// term is how long this one waits for that of seen.
func (m *Machine) term() time.Duration {
	if m.breaks&breakClocks != 0 {
		t := m.terms.with(m.seen.Lease)
		return t.lasts() + t.Settle
	}
	return m.terms.with(m.seen.Lease).Term()
}

// pause is how long it waits between two looks of Watching.
func (m *Machine) pause() time.Duration { return m.terms.with(m.seen.Lease).Interval }

// HasFenced tells that who had the lease can send nothing any more.
func (m *Machine) HasFenced() {
	if m.state == Fencing {
		m.state = Checking
	}
}

// HasSent tells that the writing of Next is sent now, whatever comes of it.
func (m *Machine) HasSent() {
	if m.state == Taking || m.state == Owning {
		m.me.Sequence++
		m.may = false
	}
}

// HasWritten tells that what was sent at that time is durable.
func (m *Machine) HasWritten(sent, now Time) {
	switch {
	case m.state == Owning:
		m.renewed(sent, now)
	case m.state != Taking:
	case m.continues && m.seen.Lease.Owner == m.me.Owner && !m.seen.free():
		m.state = Owning
		m.renewed(sent, now)
	case m.hurry, m.still && m.quick(now-m.look):
		m.state, m.until = Waiting, now+m.terms.brief()
	default:
		m.state, m.until = Waiting, now+m.term()
	}
}

// quick reports whether a brief wait will do after what took d.
func (m *Machine) quick(d time.Duration) bool { return m.terms.quick(d) || m.breaks&breakQuick != 0 }

// renewed lets requests be sent since a writing has succeeded that began at that time.
func (m *Machine) renewed(sent, now Time) {
	m.deadline, m.next, m.may = sent+m.terms.lasts(), sent+m.terms.Interval, false
	m.owned = m.owned || now < m.deadline
}

// HasFailed tells that a look or a writing failed; what was written may be there, or be
// there later. A lease that is not had yet must be taken anew, by another owner.
func (m *Machine) HasFailed(now Time) {
	if m.state == Owning {
		m.next, m.may = now+m.terms.Interval/8, false
	}
}

// Release is the lease that says that its owner has ended. ok is false when there is
// nothing to release, or no time to: it is not to be written after the time at.
func (m *Machine) Release(now Time) (l ondisk.Lease, at Time, ok bool) {
	if m.state != Owning || now >= m.deadline {
		return ondisk.Lease{}, 0, false
	}
	l = m.me
	l.Sequence++
	l.Released = true
	return l, m.deadline, true
}
