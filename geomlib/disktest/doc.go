// Package disktest is a disk in memory that can lose its power: a
// geomlib.Provider with a volatile write cache, for tests of what must survive
// a crash.
//
// A write is seen by reads at once and is durable after a Flush that began
// after the write returned. A Recorder keeps the order of what several disks
// were asked, and makes of it every state in which a loss of power could have
// left them. Faults are injected with Inject and its helpers.
//
// A request that is not in whole sectors or reaches outside of the disk
// panics: it is a mistake of the code under test, whatever it does with errors.
package disktest
