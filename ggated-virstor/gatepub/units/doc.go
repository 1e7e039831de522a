// Package units makes, finds and ends the units of geom_gate(4) that volumes
// are published as. It is the control side: it never takes or answers a request,
// and belongs in another process, or at least on other goroutines, than what
// does, since much of it waits until GEOM's event thread is idle, which that
// may not be before somebody answers.
//
// # Which unit is ours
//
// A unit outlives the daemon, and there must be only one for a volume. It
// carries the info string "ggated-virstor <id>", of a further volume of the pool or a
// snapshot with "-<map>" behind it, and its number and name are
// recorded in the run folder: before CREATE, that it is to be made, and after
// it, that it is. A daemon that starts takes over the recorded unit if
// kern.geom.confxml shows the info string on it. If confxml does not
// answer in time the event thread waits for somebody to serve a device, probably
// this one, and the record alone decides. A unit with our info string that
// is not recorded is ours, too.
package units
