package main

import "fmt"

// humanize is humanize_number(3) as geom(8) calls it for sizes: four
// characters at most, powers of 1024, one decimal below 10.
func humanize(n int64) string {
	const (
		limit  = 1000 // what three digits do not hold
		letter = "BKMGTPE"
		// 9.95 and more is rounded to 10, which has no decimal.
		cut = 973 // .95 of 1024, rounded up
	)
	quotient, rest, scale := n, int64(0), 0
	for scale < len(letter)-1 && (quotient >= limit || quotient == limit-1 && rest >= 512) {
		quotient, rest = quotient/1024, quotient%1024
		scale++
	}
	if scale > 0 && (quotient < 9 || quotient == 9 && rest < cut) {
		tenths := (rest*10 + 512) / 1024
		return fmt.Sprintf("%d.%d%c", quotient+tenths/10, tenths%10, letter[scale])
	}
	return fmt.Sprintf("%d%c", quotient+(rest+512)/1024, letter[scale])
}
