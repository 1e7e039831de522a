package disktest

import "math/rand/v2"

// Part is a part of a pending request that survives a loss of power.
type Part struct {
	// Index of the request among those pending.
	Index int
	// From and To are bytes from the request's beginning, in whole sectors: a
	// sector is written in full or not at all. To 0 means its end.
	From, To int64
}

// Pick chooses what survives of a disk's pending requests, and in which order
// it reaches the medium. The requests are in the order in which they were made.
type Pick func(disk int, ops []Op) []Part

// None survives.
func None(int, []Op) []Part { return nil }

// All survive, in order.
func All(_ int, ops []Op) []Part {
	parts := make([]Part, len(ops))
	for i := range parts {
		parts[i].Index = i
	}
	return parts
}

// Only the requests at the positions given survive, in that order.
func Only(positions ...int) Pick {
	return func(_ int, ops []Op) []Part {
		var parts []Part
		for _, pos := range positions {
			for i, op := range ops {
				if op.Pos == pos {
					parts = append(parts, Part{Index: i})
				}
			}
		}
		return parts
	}
}

// Random chooses some requests in any order, and tears some of them. It is as
// likely to keep nearly all as nearly none.
func Random(rng *rand.Rand) Pick {
	return func(_ int, ops []Op) []Part {
		var parts []Part
		keep := float64(rng.IntN(5)) / 4
		for i, op := range ops {
			if rng.Float64() >= keep {
				continue
			}
			p := Part{Index: i}
			if sectors := op.Len / op.Sector; sectors > 1 && rng.IntN(4) == 0 {
				a, b := rng.Int64N(sectors), rng.Int64N(sectors)
				p.From, p.To = min(a, b)*op.Sector, (max(a, b)+1)*op.Sector
			}
			parts = append(parts, p)
		}
		if rng.IntN(2) == 0 {
			rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		}
		return parts
	}
}
