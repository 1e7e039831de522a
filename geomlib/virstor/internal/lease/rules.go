package lease

// rule is what tests break to see that it is needed.
type rule uint8

const (
	breakReadBack  rule = 1 << iota // who has written and waited does not read it back
	breakUnflushed                  // a writing counts before it is flushed
	breakDeadline                   // requests are sent after the deadline
	breakReplay                     // what a lost connection left is sent again before the lease is read
	breakOldMap                     // who finds that another had it takes it again, and goes on
	breakClocks                     // clocks all go the same
	breakQuick                      // a slow writing of a lease that was nobody's is waited for briefly
)
