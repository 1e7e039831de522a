// Package nbd publishes disks as exports of an NBD server: fixed newstyle
// negotiation, TLS, simple and structured replies, extended headers (lengths of 64
// bits), block status of base:allocation and of what changed since snapshots, several
// connections per export and many requests in flight on each.
//
// Every connection has two goroutines. The reader takes requests off the
// socket, many with one read, and submits them; a request that completes at
// once has its reply queued, and the reader writes the queue, many replies with
// one write, before it waits for more input. Replies that come later, or are
// large, are written by the connection's writer. Requests that go on to other hosts are sent
// together, before the reader waits (virstor.Gather), and what comes back together is
// answered together, by whoever received it (geomlib.Batch). Completing a request therefore
// never waits for a peer.
//
// The way of a request, socket to socket:
//
//	takeRequests (reader.go)   one header after the other, while there may be more
//	dispatch (command.go)      the command, its flags and its range
//	charge (charge.go)         memory for what is read or written
//	readPayload (reader.go)    what a write brings
//	submit (command.go)        to the disk, virstor.Volume, which goes on in its submit.go
//	Complete (request.go)      from the disk, now or later; the reply is encoded
//	enqueue (reply.go)         the reply is queued, and written by whoever is free
//
// A server may leave its clients to another one, in another process, which they do not
// notice (handover.go).
//
// Nothing that a client sends makes the server use more than a bounded amount
// of memory and time, and a client that stalls holds up no other: see Config
// for the limits.
package nbd
