package member

import (
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// trial is the judging of one claimant of index 0.
type trial struct {
	claims []Claim
	zero   ondisk.Metadata
	record ondisk.Extension
	v      Verdict

	list []uint64 // member ids by index, of the list in force; 0 where not known
	want []uint64 // list as it is when an unfinished removal is finished
	// known: all of list is, and it is what component 0 says.
	known  bool
	inList map[uint64]bool // ids of list
	inWant map[uint64]bool // ids of want
}

// try judges the claims as if claim z were component 0.
func try(claims []Claim, z int) Verdict {
	t := &trial{claims: claims, zero: claims[z].Metadata}
	if r := claims[z].Record; r != nil {
		t.record = *r
	}
	t.v = Verdict{Blocks: true, Zero: z, Outside: make([]Kind, len(claims))}
	t.v.Settled, t.v.Nonce = t.zero.Member.Settled, t.zero.Member.SettledNonce
	t.list, t.known = findList(t)
	t.want = t.wanted()
	t.inList, t.inWant = setOf(t.list), setOf(t.want)
	t.findSettled()
	t.classify()
	t.fill()
	if t.v.Err == nil {
		t.compare()
	}
	return t.v
}

func setOf(ids []uint64) map[uint64]bool {
	set := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		set[id] = id != 0
	}
	return set
}

// removal is what an unfinished removal is about. underWay is false when the list in
// force is that of after it, or there is none.
func (t *trial) removal() (removed, last int, underWay bool) {
	i := t.record.Intent
	if i.Kind != ondisk.IntentRemove || i.Leaves == 0 {
		return 0, 0, false
	}
	removed, last = int(i.Arg[0]), int(i.Arg[1])
	return removed, last, int(t.zero.Count) == last+1 && removed <= last && removed > 0
}

// wanted is the list in force as it is when an unfinished removal is finished.
func (t *trial) wanted() []uint64 {
	removed, last, underWay := t.removal()
	if !underWay {
		return t.list
	}
	w := slices.Clone(t.list[:last])
	if removed < last {
		w[removed] = t.list[last]
	}
	return w
}

// family tells whether a member is of the list in force. While that is not known, it
// is whoever could be of it: by index, and not of an older generation than all others.
func (t *trial) family(m ondisk.Metadata) bool {
	if t.known {
		return t.inList[m.Member.ID]
	}
	return int(m.No) < len(t.list) && (t.list[m.No] == 0 || t.list[m.No] == m.Member.ID)
}

// findSettled finds the highest settled generation of the family.
func (t *trial) findSettled() {
	if !t.known {
		return
	}
	for _, c := range t.claims {
		if b := c.Metadata.Member; !c.Damaged && b.Exists() && t.family(c.Metadata) && b.Settled > t.v.Settled {
			t.v.Settled, t.v.Nonce = b.Settled, b.SettledNonce
		}
	}
}

// classify says of each claim what it is.
func (t *trial) classify() {
	for i, c := range t.claims {
		t.v.Outside[i] = t.kind(c)
	}
}

func (t *trial) kind(c Claim) Kind {
	b := c.Metadata.Member
	switch {
	case c.Damaged:
		return Damaged
	case !b.Exists():
		if t.unmarkedCounts(c.Metadata) {
			return 0
		}
		return Stale
	case b.ID == t.record.Intent.Leaves && !t.inWant[b.ID]:
		return Leaving
	case !t.family(c.Metadata):
		return Stranger
	case b.Generation >= t.v.Settled:
		return 0
	}
	if since, failed := t.record.FailedSince(b.ID); failed && b.Generation >= since {
		return 0
	}
	return Stale
}

// unmarkedCounts tells whether a component without a block may be a member: while the
// first fence is under way, or the handing back.
func (t *trial) unmarkedCounts(m ondisk.Metadata) bool {
	if m.No == 0 {
		return false
	}
	if m.Version == ondisk.Version && t.record.HandBack {
		return true // an older copy of it may have told the list
	}
	if t.known {
		return false
	}
	if m.Version == ondisk.Version {
		return t.v.Settled == 0 || t.record.HandBack || t.mayBeHandedBack(m)
	}
	return t.v.Settled == 0 // the first release's
}

// mayBeHandedBack tells whether a component of version 1 may be of a handing back that
// could not be noted, for want of room for the record: the last component is written
// first, each is durable before the one before it, and component 0 comes last. So no
// true member behind it still has a block.
func (t *trial) mayBeHandedBack(m ondisk.Metadata) bool {
	if _, room := ondisk.ExtensionOffset(t.zero); room {
		return false
	}
	return !slices.ContainsFunc(t.claims, func(c Claim) bool {
		b := c.Metadata.Member
		return !c.Damaged && b.Exists() && c.Metadata.No > m.No && c.Metadata.No < t.zero.Count && b.Generation >= t.v.Settled && t.agrees(b)
	})
}

// fill finds who is there of the list that is wanted.
func (t *trial) fill() {
	t.v.Members = make([]int, len(t.want))
	t.v.Failed = make([]bool, len(t.want))
	index := make(map[uint64]int, len(t.want))
	for i, id := range t.want {
		t.v.Members[i] = -1
		if id != 0 {
			index[id] = i
		}
		_, t.v.Failed[i] = t.record.FailedSince(id)
	}
	if t.v.Outside[t.v.Zero] == 0 {
		t.v.Members[0] = t.v.Zero
	}
	for _, marked := range []bool{true, false} {
		for n, c := range t.claims {
			if n != t.v.Zero && t.v.Outside[n] == 0 && c.Metadata.Member.Exists() == marked {
				t.place(n, index)
			}
		}
	}
	for i, n := range t.v.Members {
		switch {
		case n < 0:
			t.v.Missing = append(t.v.Missing, i)
		case !t.claims[n].Metadata.Member.Exists() && t.v.Settled > 0 && !t.record.HandBack:
			t.v.Unproven = append(t.v.Unproven, i)
		}
	}
	if t.v.Missing != nil && t.v.Err == nil {
		t.v.Err = ErrMissing
	}
}

// place gives claim n its index.
func (t *trial) place(n int, index map[uint64]int) {
	m := t.claims[n].Metadata
	i, known := index[m.Member.ID]
	if !known && int(m.No) < len(t.want) && t.want[m.No] == 0 {
		i, known = int(m.No), !m.Member.Exists() || t.agrees(m.Member)
	}
	if !known && !m.Member.Exists() && int(m.No) < len(t.want) && t.v.Members[m.No] < 0 {
		i, known = int(m.No), true // handed back already
	}
	switch {
	case known && i == 0 && t.v.Members[0] < 0:
		// Another provider is the same member, and this is not its list.
	case !known && m.Member.Exists():
		t.v.Outside[n] = Stranger
	case !known:
		t.v.Outside[n] = Stale
	case t.v.Members[i] >= 0:
		other := t.v.Members[i]
		if compareMoments(t.claims[other].Metadata.Member, m.Member) == otherMoment {
			t.fail(ErrHistories, other, n)
			return
		}
		t.fail(ErrTwins, other, n)
	default:
		t.v.Members[i] = n
	}
}

// agrees tells whether a member whose list cannot be looked up may be of the same
// fence, or of the same handing back, as component 0.
func (t *trial) agrees(b ondisk.MemberBlock) bool {
	z := t.zero.Member
	if t.v.Settled == 0 {
		return b.Settled == 0 && b.Generation <= z.Generation
	}
	return b.Generation == z.Generation && b.Nonce == z.Nonce ||
		b.Settled == t.v.Settled && b.SettledNonce == t.v.Nonce
}

// compare refuses members that went different ways: one generation has one nonce, and
// whoever is above the settled one comes from it.
func (t *trial) compare() {
	nonces := make(map[uint64]int) // generation: the claim that has its nonce
	for n, c := range t.claims {
		b := c.Metadata.Member
		if t.v.Outside[n] != 0 || !b.Exists() || b.Generation < t.v.Settled {
			continue
		}
		switch other, seen := nonces[b.Generation]; {
		case b.Generation == t.v.Settled && t.v.Settled > 0 && b.Nonce != t.v.Nonce,
			b.Generation > t.v.Settled && (b.Settled != t.v.Settled || b.SettledNonce != t.v.Nonce),
			b.Settled == t.v.Settled && b.SettledNonce != t.v.Nonce:
			t.fail(ErrHistories, t.rival(n), n)
		case seen && t.claims[other].Metadata.Member.Nonce != b.Nonce && t.known:
			t.fail(ErrHistories, other, n)
		default:
			nonces[b.Generation] = n
		}
		t.v.Highest = max(t.v.Highest, b.Generation)
	}
}

// rival is a member that claim n contradicts: one that has settled what counts.
func (t *trial) rival(n int) int {
	for i, c := range t.claims {
		b := c.Metadata.Member
		if i != n && t.v.Outside[i] == 0 && b.Settled == t.v.Settled && b.SettledNonce == t.v.Nonce {
			return i
		}
	}
	return t.v.Zero
}

func (t *trial) fail(err error, a, b int) {
	if t.v.Err == nil {
		t.v.Err, t.v.Rivals = err, [2]int{a, b}
	}
}
