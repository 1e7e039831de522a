package supervisor

// Protector keeps the kernel from taking memory away from processes that it needs
// itself: when memory is short, the kernel writes to disks, and waits for the
// process that serves one; if that waits for memory in turn, nothing goes on.
// Its methods may be called by many goroutines.
type Protector interface {
	// LockMemory locks all memory of this process, now and later, after the limit
	// on locked memory was raised where that is allowed.
	LockMemory() error
	// FromKill keeps the kernel from killing a process for want of memory.
	FromKill(pid int) error
}

// SystemProtector is what the operating system can do. On systems without geom_gate
// there is nothing to protect, and nothing is done.
func SystemProtector() Protector { return systemProtector{} }
