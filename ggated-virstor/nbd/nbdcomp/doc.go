// Package nbdcomp makes providers of NBD exports, so that a volume's components may be
// whatever people export: an image of Ceph by qemu-nbd, another host's disk, nbdkit's
// plugins. Their names are NBD URIs.
//
//	engine ──► Provider ──► nbdclient.Conn, up to connections of them ──► server
//
// A program that connects by itself registers an Opener without Connect. Where a
// supervisor opens for a worker that may not connect, the supervisor registers a Keeper,
// which takes the lock of an export and connects when it is asked, and the worker an
// Opener whose Connect asks the supervisor.
//
// What is on its way when a connection is lost fails, and so does all that follows: the
// component has failed as a disk fails. Nothing is sent twice.
package nbdcomp
