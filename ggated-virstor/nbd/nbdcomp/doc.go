// Package nbdcomp makes providers of NBD exports, so that a volume's components may be
// whatever people export: an image of Ceph by qemu-nbd, another host's disk, nbdkit's
// plugins. Their names are NBD URIs.
//
//	engine ──► provider ──► session: nbdclient.Conn, one or more ──► server
//	             │ journal: what is not flushed    ▲
//	             └ link: keep ──► regain ──────────┘ again: the journal is done again
//
// A program that connects by itself registers an Opener without Connect. Where a
// supervisor opens for a worker that may not connect, the supervisor registers a Keeper,
// which takes the lock of an export and connects when it is asked, and the worker an
// Opener whose Connect asks the supervisor.
//
// What is read and written at once needs no goroutine that waits (start.go): requests are
// sent together, and their ends come together, on the goroutine that receives. Whatever
// would have to wait, for a server that is away, for room or for what it overlaps, is done
// by ReadAt and WriteAt.
//
// A server that is lost is a pause. It may come back without what it had answered and not
// flushed, so all changes since the last flush are kept (journal) and done again in their
// order before anything else is, when the server has shown that it has what it had flushed
// (proofs). What was sent on a connection that was given up may be done late: nothing is
// done again before that is over (provider.doubt). rules.go has what tests break of this.
package nbdcomp
