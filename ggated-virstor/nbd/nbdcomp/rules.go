package nbdcomp

// rule is what tests break to see that it is needed.
type rule uint8

const (
	breakNoJournal rule = 1 << iota // nothing is done again
	breakNoZeroes                   // only writes are
	breakNoProof                    // nothing is read back
	breakOverlap                    // what overlaps is on its way at the same time
	breakNoDoubt                    // nothing waits for what old connections may do
	breakOlder                      // of what a flush covers only the last change is not done again
	breakNoGuard                    // nobody is asked before something is done again
)

// skips reports whether changes of a kind are not done again.
func (r rule) skips(k kind) bool {
	return r&breakNoJournal != 0 || r&breakNoZeroes != 0 && k != kindWrite
}
