package geomlib

// Lender is implemented by providers that can lend what they hold as memory, so that who
// only passes it on need not copy it first.
type Lender interface {
	// Lend lends the n bytes at off until the loan ends, soon. What is written there
	// meanwhile may be seen or not. It reports false when they cannot be lent, and, unless
	// wait is set, when that would wait for a device: they are read then. It never fails
	// for the medium, which is asked again by who reads.
	Lend(off, n int64, wait bool) (l Loan, ok bool)
}

// Loan is memory that a provider lends.
type Loan struct {
	// Memory is for system calls alone, which fail with EFAULT where the medium cannot be
	// read any more. A program that looks at it itself gets a signal then.
	Memory []byte

	lent // from what, and its End
}
