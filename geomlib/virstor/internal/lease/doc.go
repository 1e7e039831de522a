// Package lease is who serves a volume whose components several hosts can reach. The
// lease itself is a record on component 0 (ondisk.Lease).
//
// Machine decides, from times and from what was read and written; Keeper does what it
// says, and renews. Times are of one host, and never compared with another's: all waiting
// is for something that stays the same for so long by the own clock.
//
// Taking it:
//
//  1. Look. Nobody's, or released: go on with 4 at once. Somebody's: 2.
//  2. Watch it for a term: three intervals, in which the owner would write it or stop
//     sending, and the settling time, in which what he sent is done or given up. Written
//     meanwhile: he lives, and the lease is refused.
//  3. Fence him off, if there is a way to.
//  4. Look again, and write the own lease shortly after.
//  5. Wait for a term, in which whoever looked before that writing finds out, or writes
//     his own over it. If the lease was nobody's and 4 took no time, a quarter of an
//     interval is as good: who looked then and comes later has taken time over it, and
//     waits for a term himself.
//  6. Read it back, and write it once more.
//
// The owner reads the lease before he writes it again. Requests may be sent until three
// intervals after the last writing that succeeded was begun. Whoever finds another's
// lease where his was has lost it.
//
// A term is a ninth and another ninth longer than what it consists of, since clocks go
// ten percent too fast here and ten percent too slowly there.
package lease
