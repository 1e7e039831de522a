// Command ggated-virstor assembles gvirstor volumes from their components and
// publishes them.
//
// One program is up to three processes, which run tells apart:
//
//	--supervise=no            process: direct          serve(direct)
//
//	--supervise, or devices   supervisor ──socket──►   worker
//	                          supervise.go             worker.go: serve(worker)
//	                          keeps what must outlive  serves, as a user who may do
//	                          a worker, and does what  little, with descriptors that
//	                          needs root               it is given
//	                              │
//	                              └──► helper          asks the kernel what cannot be
//	                                   gatepub/helper  called off, and holds no lock
//
// serve is the same for both: it has what it needs from a host (host.go). The first
// providers are served, then clients are answered, until the host says how to end.
// SIGHUP has a reloader read the configuration again, in the process that serves, and
// in a supervisor before that.
//
//	options   what it was told: command line and configuration file
//	daemon    the volumes in service, and the verbs of the control socket
//	publish   what daemon and publications know of each other
//	gatepub   devices of geom_gate(4): publisher, serve, units, helper
//	nbd       the NBD server; nbdpub makes it a publisher
//	space     what happens when space gets short
//	control   the control socket: server, client, types
//	verbs     what the control socket asks of one volume
//	web       the status page, metrics and health by HTTP
//	supervisor  the other process, and how the worker asks it
//	confine, peercred  what the operating systems have for that
package main
