// Package serve publishes one volume as the unit of a geom_gate(4): it takes
// the unit's requests, submits them to the volume and answers them.
//
// # Receiving
//
// One or more receivers take requests, but one at a time sleeps in START: the
// one whose turn it is. The others wait in Go, where they hold no OS thread and
// are not woken with every request. When a request is taken and its place among
// the others is known, its receiver submits it, and answers it when that
// completes it at once. Otherwise whichever goroutine of the volume completes it
// sends the answer, which never sleeps.
//
// Where it pays, the receiver does START, the transfer and DONE in a loop, and
// nobody else is woken: for what is in memory, or for a client that waits for
// each request. A disk with a latency is left to the volume's workers, so that it
// has as many requests as there are. Whether the client has several under way is
// seen when requests are handed over, and which of the two serves more is tried out
// now and then for one that has (servePolicy). From a request that takes longer than
// expected the turn is taken away (watchdog).
//
// A read or write of a client that waits for each is served straight: it gets no
// place in the order, no lock is taken for it and no clock read, since nothing can
// come while its receiver is at it. Whoever lets others come gives it its place first.
//
// # Order
//
// Of two requests that are under way at once and overlap, unless both read, the
// later one waits until the earlier one is answered. So when the
// process dies, a request that is replayed was not followed by another on
// its range, and replaying it changes nothing that was answered since. A
// FLUSH waits for all writes taken before it. Neither waits for a write that the
// volume holds for want of space, and such a write keeps no receiver, no
// buffer of the publication and no worker.
//
// # Stopping
//
// The unit outlives the publication. A START cannot be called off from another
// goroutine but by a signal to its thread; Stop sends these until
// every receiver is out. A process that ends anyway need not wait for that:
// exit ends a START too. Whoever comes next calls Start, which has the kernel
// queue again what was taken and not answered. Two publications of one unit
// at a time destroy data.
//
// Nothing here opens or closes a device, and the goroutine that creates,
// resizes and destroys units must be none of the publication's: see package gate
// on threads. GOMAXPROCS should be raised by one for every publication.
package serve
