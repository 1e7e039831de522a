// Package publish is what the daemon and the ways in which it makes volumes
// reachable know of each other: a Publisher for each way, a Published for each
// volume, and the roles that one or the other may have besides.
//
//	daemon ──Publish(volume)──► Publisher            gatepub: devices of geom_gate(4)
//	   │                            │                nbd/nbdpub: exports of an NBD server
//	   │                            ▼
//	   ├──Withdraw, Leave, …───► Published           one volume, reachable
//	   │
//	   ├──Leftovers────────────► Durable             a Publisher whose devices outlive the daemon
//	   ├──Clients──────────────► ClientLister        a Publisher that can tell its clients apart
//	   ├──Activated────────────► Activator           a Published that serves before it is writable
//	   ├──Follow───────────────► Follower            a Published that changes with its volume
//	   ├──MayAdd───────────────► ComponentChecker    a Published that cannot do with every provider
//	   ├──ShowSnapshots, LetGo─► SnapshotKeeper      a Published that has the rest of the pool, too
//	   ├──ShowSnapshot─────────► SnapshotPublisher   a Published of snapshots that are asked for
//	   └──Drain────────────────► Drainer             a Published whose clients may leave requests behind
//
// A process that may not open what publications need is given it as Resources.
//
// A role is asked for by a type assertion; who does not have it is passed over.
// A further way to publish is a package that implements Publisher and those roles
// that fit it, runs the suite of publishtest, and has a line where the daemon's
// publishers are put together (newDaemon in serve.go).
//
// The daemon calls Publish, Withdraw, Leave and Follow of one volume one after the
// other. Describe, Users, Names and what lists clients may be called at any time
// and by many goroutines.
package publish
