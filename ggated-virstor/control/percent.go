package control

// PercentFree is free chunks in a hundred of total, as the kernel class rounds
// it: what is used is rounded down.
func PercentFree(free, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return 100 - (total-free)*100/total
}
