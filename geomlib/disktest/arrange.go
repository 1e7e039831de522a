package disktest

import "iter"

// arrangeable is how many requests pending on one disk Arrangements enumerates.
const arrangeable = 4

// Arrangements yields what a loss of power at position k can leave when requests
// survive whole: every subset of what is pending on each disk, in every order in
// which it could have reached the medium and that makes a difference. Where
// that is more than limit, one disk at a time is varied while of the others all
// or nothing survives; a disk with more than four requests pending counts as one
// that keeps all or nothing. limit still bounds how many are yielded.
func (r *Recorder) Arrangements(k, limit int) iter.Seq[PowerLoss] {
	views := r.views(k)
	choices := make([][][]Part, len(views))
	product := 1
	for i, v := range views {
		choices[i] = arrangements(v.ops)
		product = min(product*len(choices[i]), limit+1)
	}
	return func(yield func(PowerLoss) bool) {
		if product <= limit {
			eachProduct(choices, func(kept [][]Part) bool { return yield(PowerLoss{At: k, Kept: kept}) })
			return
		}
		left := limit
		for i := range choices {
			for _, rest := range []Pick{All, None} {
				for _, c := range choices[i] {
					l := r.chosen(k, rest)
					l.Kept[i] = c
					if left--; left < 0 || !yield(l) {
						return
					}
				}
			}
		}
	}
}

// arrangements are the ordered subsets of ops, nothing first, everything in order
// last.
func arrangements(ops []Op) [][]Part {
	if len(ops) > arrangeable {
		return [][]Part{nil, All(0, ops)}
	}
	all := [][]Part{nil}
	for set := 1; set < 1<<len(ops); set++ {
		var in []int
		for i := range ops {
			if set>>i&1 != 0 {
				in = append(in, i)
			}
		}
		var orders [][]Part
		permute(ops, in, nil, func(parts []Part) { orders = append(orders, parts) })
		for i := len(orders) - 1; i >= 0; i-- { // in order last
			all = append(all, orders[i])
		}
	}
	return all
}

// permute calls do for the orders of the requests in rest behind those in done.
// Of orders that differ only in neighbours that do not overlap it makes one.
func permute(ops []Op, rest []int, done []Part, do func([]Part)) {
	if len(rest) == 0 {
		do(append([]Part(nil), done...))
		return
	}
	for at, i := range rest {
		if n := len(done); n > 0 && done[n-1].Index > i && !overlap(ops[done[n-1].Index], ops[i]) {
			continue
		}
		others := append(append([]int(nil), rest[:at]...), rest[at+1:]...)
		permute(ops, others, append(done, Part{Index: i}), do)
	}
}

func overlap(a, b Op) bool { return a.Off < b.Off+b.Len && b.Off < a.Off+a.Len }

// eachProduct calls do for every way to take one of each of choices.
func eachProduct(choices [][][]Part, do func([][]Part) bool) {
	at := make([]int, len(choices))
	for {
		kept := make([][]Part, len(choices))
		for i, n := range at {
			kept[i] = choices[i][n]
		}
		if !do(kept) {
			return
		}
		i := 0
		for ; i < len(at); i++ {
			if at[i]++; at[i] < len(choices[i]) {
				break
			}
			at[i] = 0
		}
		if i == len(at) {
			return
		}
	}
}
