package confine

import (
	"os"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of a worker. Those that an architecture does not have
// are left out. None of them takes a path, makes a socket, or starts a program.
var allowed = []string{
	// The runtime: memory, threads, signals, time.
	"brk", "munmap", "madvise", "mremap", "mincore",
	"futex", "exit", "exit_group", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
	"gettid", "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getrusage", "uname", "getcwd",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday",
	"timer_create", "timer_settime", "timer_delete", "setitimer", "getrandom", "getrlimit",
	// Components.
	"pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek", "fsync", "fdatasync", "sync_file_range",
	"fallocate", "fadvise64", "fstat", "fstatfs", "ftruncate", "flock",
	// Sockets that are given, and what they accept.
	"read", "write", "readv", "writev", "close", "accept4", "recvfrom", "recvmsg", "sendto", "sendmsg", "shutdown",
	"setsockopt", "getsockopt", "getsockname", "getpeername", "fcntl", "dup", "dup3",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2", "poll", "ppoll",
}

// diskRequests are the ioctls of block devices and files that geomlib makes (linux/fs.h).
var diskRequests = []uint64{unix.BLKGETSIZE64, unix.BLKSSZGET, unix.BLKROGET, unix.BLKDISCARD, unix.BLKZEROOUT, unix.BLKFLSBUF, unix.FICLONERANGE}

// ringCalls are those of a worker with rings (geomlib.Rings). No filter sees what a ring is
// asked for, which could be to open a file or to connect. Those that the worker has were
// restricted, when they were made, to reads and writes at descriptors that it has, which
// pread64 and pwrite64 are allowed for; without io_uring_setup it gets no other, and without
// io_uring_register those stay as they are. What it reaches more of is the kernel's own code.
var ringCalls = []string{"io_uring_enter"}

// policy allows what is in allowed, and of some other calls a part.
func policy(info *arch.Info, rings bool) seccomp.Policy {
	g := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	names := allowed
	if rings {
		names = slices.Concat(allowed, ringCalls)
	}
	for _, name := range names {
		if _, ok := info.SyscallNames[name]; ok {
			g.Names = append(g.Names, name)
		}
	}
	only := func(name string, c ...seccomp.Condition) {
		g.NamesWithCondtions = append(g.NamesWithCondtions, seccomp.NameWithConditions{Name: name, Conditions: c})
	}
	for _, r := range diskRequests {
		only("ioctl", seccomp.Condition{Argument: 1, Operation: seccomp.Equal, Value: r})
	}
	// Threads, but no processes; clone3 hides its flags, and the C library does
	// without it where it is told that there is none.
	only("clone", seccomp.Condition{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD})
	// The runtime interrupts its own threads.
	only("tgkill", seccomp.Condition{Argument: 0, Operation: seccomp.Equal, Value: uint64(os.Getpid())})
	// Memory that is not run.
	for _, name := range []string{"mmap", "mprotect"} {
		only(name, seccomp.Condition{Argument: 2, Operation: seccomp.BitsNotSet, Value: unix.PROT_EXEC})
	}
	// Limits are read, of this process, and not set.
	only("prlimit64", seccomp.Condition{Argument: 2, Operation: seccomp.Equal, Value: 0})
	none := seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{g, none}}
}
