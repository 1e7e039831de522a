package member

import "github.com/gvirstor/gvirstor/ondisk"

// History says of each claim whether it may belong to the history of claim of: the
// moments that a member block tells of, each a generation with its nonce, lead from one
// member to another. Whoever contradicts that, or was written later by somebody else, is
// of another history; who is older is not, and is judged with the rest. A claim without a
// block is of the history of one without, alone.
func History(claims []Claim, of int) []bool {
	in := make([]bool, len(claims))
	in[of] = true
	first := claims[of].Metadata.Member
	if !first.Exists() {
		for i, c := range claims {
			in[i] = !c.Damaged && !c.Metadata.Member.Exists()
		}
		return in
	}
	for grew := true; grew; {
		grew = false
		for i, c := range claims {
			if !in[i] && !c.Damaged && related(claims, in, c.Metadata.Member) {
				in[i], grew = true, true
			}
		}
	}
	highest := first.Generation
	for i, c := range claims {
		if in[i] {
			highest = max(highest, c.Metadata.Member.Generation)
		}
	}
	for i, c := range claims {
		b := c.Metadata.Member
		if !in[i] && !c.Damaged && (!b.Exists() || b.Generation < highest && !contradicted(claims, in, b)) {
			in[i] = true
		}
	}
	return in
}

// related tells whether b shares a moment with one that is in, and contradicts none.
func related(claims []Claim, in []bool, b ondisk.MemberBlock) bool {
	if !b.Exists() || contradicted(claims, in, b) {
		return false
	}
	for i, c := range claims {
		if in[i] && compareMoments(c.Metadata.Member, b) == sameMoment {
			return true
		}
	}
	return false
}

func contradicted(claims []Claim, in []bool, b ondisk.MemberBlock) bool {
	for i, c := range claims {
		if in[i] && c.Metadata.Member.Exists() && compareMoments(c.Metadata.Member, b) == otherMoment {
			return true
		}
	}
	return false
}

// moments is what two blocks tell of the same generations.
type moments int

const (
	noMoment    moments = iota // they tell of none that both know
	sameMoment                 // what both know is the same
	otherMoment                // one generation has two nonces
)

func compareMoments(a, b ondisk.MemberBlock) moments {
	result := noMoment
	for _, x := range [][2]uint64{{a.Generation, a.Nonce}, {a.Settled, a.SettledNonce}} {
		for _, y := range [][2]uint64{{b.Generation, b.Nonce}, {b.Settled, b.SettledNonce}} {
			switch {
			case x[0] == 0 || x[0] != y[0]:
			case x[1] != y[1]:
				return otherMoment
			default:
				result = sameMoment
			}
		}
	}
	return result
}
