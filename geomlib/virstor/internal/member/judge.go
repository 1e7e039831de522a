package member

import (
	"cmp"
	"errors"
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Claim is what one provider says. All claims that are judged together name one
// volume.
type Claim struct {
	Metadata ondisk.Metadata
	// Damaged: the member block does not bear out its checksum, so the provider
	// says nothing of what it is.
	Damaged bool
	// Record is the extension record in force, where the provider claims to be
	// component 0 of ondisk.VersionFenced and has one; otherwise nil.
	Record *ondisk.Extension
}

// Reasons why a set of claims is no volume.
var (
	// ErrMissing: members of the volume are not there. Verdict.Missing has their
	// indexes.
	ErrMissing = errors.New("member missing")
	// ErrHistories: what is there was written in two ways since they parted.
	ErrHistories = errors.New("two histories of one volume")
	// ErrTwins: two providers are the same member, and both could be.
	ErrTwins = errors.New("two providers are the same member")
)

// Kind is what a provider is that is no member.
type Kind uint8

// The kinds.
const (
	// Stale: it missed what the others have. It is, or was, a member.
	Stale Kind = iota + 1
	// Stranger: component 0 does not know it: it was removed, its add was not
	// finished, or it comes from elsewhere.
	Stranger
	// Leaving: component 0's record says that it is being taken out, by its id.
	Leaving
	// Damaged: its member block is.
	Damaged
	// Unjudged: there is no component 0 that could say what it is.
	Unjudged
)

// Verdict is what a set of claims is.
type Verdict struct {
	// Blocks: a member block decides. If not, none of the claims that could
	// decide has one, and the rules are those of volumes without.
	Blocks bool
	// Zero is the claim of component 0, or -1.
	Zero int
	// Members are the claims by index, as they are once an intent to remove in
	// the record of Zero is finished; -1 where one is missing.
	Members []int
	// Outside is what each claim is that is no member; 0 for members.
	Outside []Kind
	// Failed: the member of that index takes no writes, as the record says.
	Failed []bool
	// Unproven are the indexes of members of version 1 of which nothing but their
	// version says that they were handed back: the volume has no room to note that.
	Unproven []int
	// Settled is the highest generation that is known to have been on all
	// members, and Nonce that generation's. Highest is the highest that any true
	// member has.
	Settled, Nonce, Highest uint64
	// Missing are the indexes of which no true member is there.
	Missing []int
	// Rivals are the two claims that Err is about, for ErrHistories and ErrTwins.
	Rivals [2]int
	Err    error
}

// Judge judges claims to be one volume. Each claimant of index 0 is tried with its
// own list: one complete set is the volume. Of more, that of the later record is which
// hands component 0 on, or names the other's component 0 as failed; otherwise they are two histories.
func Judge(claims []Claim) Verdict {
	var tried []Verdict
	for i, c := range claims {
		if !c.Damaged && c.Metadata.No == 0 && c.Metadata.Member.Exists() {
			tried = append(tried, try(claims, i))
		}
	}
	if len(tried) == 0 {
		return withoutBlocks(claims)
	}
	best := choose(claims, tried)
	plain, complete := versionOneComplete(claims)
	switch {
	case !complete:
	case best.Err != nil:
		return withoutBlocks(claims)
	case best.Settled > 0 && best.Outside[plain] != 0:
		// Copies of label's time, or the volume as it was handed back since.
		best.Err, best.Rivals = ErrHistories, [2]int{best.Zero, plain}
	}
	return best
}

// withoutBlocks leaves the decision to the rules of volumes without member blocks,
// if a component 0 without one is there: everything with a block is then stale.
func withoutBlocks(claims []Claim) Verdict {
	v := Verdict{Zero: -1, Outside: make([]Kind, len(claims))}
	settled := false
	for _, c := range claims {
		settled = settled || c.Metadata.Member.Settled > 0
	}
	for i, c := range claims {
		switch m := c.Metadata; {
		case c.Damaged:
			v.Outside[i] = Damaged
		case m.Member.Exists():
			v.Outside[i] = Stale
		case settled && m.Version != ondisk.Version:
			// The first release's, among others that have had blocks for long.
			v.Outside[i] = Stale
		case m.No == 0:
			v.Zero = i
		}
	}
	if v.Zero < 0 && slices.ContainsFunc(claims, func(c Claim) bool { return c.Metadata.Member.Exists() }) {
		v.Blocks = true
		v.Missing = []int{0}
		v.Err = ErrMissing
		for i, c := range claims {
			if v.Outside[i] == Stale && c.Metadata.Member.Exists() {
				v.Outside[i] = Unjudged
			}
		}
	}
	return v
}

// versionOneComplete tells whether the claims of version 1 alone are a volume, and which
// is its component 0.
func versionOneComplete(claims []Claim) (zero int, complete bool) {
	count, have := -1, make(map[uint16]int)
	for i, c := range claims {
		if m := c.Metadata; !c.Damaged && m.Version == ondisk.Version {
			have[m.No]++
			if m.No == 0 {
				count, zero = int(m.Count), i
			}
		}
	}
	for i := range count {
		if have[uint16(i)] != 1 {
			return 0, false
		}
	}
	return zero, count > 0
}

// choose picks among the verdicts of the claimants of index 0.
func choose(claims []Claim, tried []Verdict) Verdict {
	var complete []Verdict
	for _, t := range tried {
		if t.Err == nil {
			complete = append(complete, t)
		}
	}
	complete = slices.DeleteFunc(complete, func(t Verdict) bool {
		return slices.ContainsFunc(complete, func(by Verdict) bool { return replaced(claims, t, by) }) ||
			slices.ContainsFunc(tried, func(by Verdict) bool { return dismissed(claims, t, by) })
	})
	switch len(complete) {
	case 0:
		// The one that knows most tells best what is missing.
		return slices.MaxFunc(tried, func(a, b Verdict) int {
			return cmp.Or(cmp.Compare(a.Settled, b.Settled), cmp.Compare(len(b.Missing), len(a.Missing)))
		})
	case 1:
		return complete[0]
	}
	v := complete[0]
	v.Err, v.Rivals = ErrHistories, [2]int{v.Zero, complete[1].Zero}
	return v
}

// replaced tells whether component 0 of the complete set by took over from that of
// the complete set t.
func replaced(claims []Claim, t, by Verdict) bool {
	old, now := claims[t.Zero], claims[by.Zero]
	if t.Zero == by.Zero || now.Record == nil {
		return false
	}
	if _, left := now.Record.FailedSince(old.Metadata.Member.ID); left && by.Outside[t.Zero] != 0 {
		return true
	}
	var sequence uint64
	if old.Record != nil {
		sequence = old.Record.Sequence
	}
	return now.Record.Intent.Kind == ondisk.IntentReplaceZero && now.Record.Sequence > sequence
}

// dismissed tells whether the component 0 of t, a complete set, left the volume that by
// is of, which somebody is missing of, or is too old for: then the rest of t's are what
// they were before. A component 0 that took no writes still says what it said then.
func dismissed(claims []Claim, t, by Verdict) bool {
	old, now := claims[t.Zero].Metadata.Member, claims[by.Zero]
	if t.Zero == by.Zero || now.Record == nil || by.Outside[t.Zero] == 0 || now.Metadata.Member.Generation <= t.Highest {
		return false
	}
	_, left := now.Record.FailedSince(old.ID)
	return left || now.Record.Intent.Kind == ondisk.IntentReplaceZero && now.Record.Intent.Leaves == old.ID
}
