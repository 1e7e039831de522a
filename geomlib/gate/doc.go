// Package gate is the Go face of geom_gate(4), version 3 (FreeBSD 12 to 15):
// disks below /dev whose requests a process answers.
//
// A unit is made with Create and lives in the kernel until Destroy: it
// outlives every descriptor and every process. The kernel puts each request of
// a unit on its in-queue; Start takes the first and moves it to the
// out-queue; Done answers it. Cancel moves what was taken but not answered back
// to the head of the in-queue, in the order it was taken, with its sequence
// numbers: that is how a new process takes over from a dead one.
//
// The kernel does not know who serves a unit. Two processes that serve one unit
// destroy its data: prove that the other is dead before Cancel.
//
// # Threads
//
// A Start sleeps in the kernel and holds an OS thread. The Go scheduler takes
// the thread's P away while it sleeps, and the thread must find another when it
// wakes: a program should raise GOMAXPROCS by the number of Starts that sleep
// at once, so that there is always one to be had. A request wakes every sleeping
// Start of its unit and all but one go back to sleep.
//
// The thread that called Create, and every thread that answers requests, must
// not open or close devices, read kern.geom.confxml or call Resize: these wait
// until GEOM has no pending event, and a pending event may be the tasting of the
// very unit that waits for an answer. What is in such a wait does not die, nor give
// up its locks, before somebody serves the unit: see ggated-virstor/gatepub/helper.
//
// # Other systems
//
// Everything but Open and FromFile works on every system against a Device;
// package gatetest has one that behaves as the kernel does.
package gate
