// Package supervisor lets the process that serves volumes die and be replaced
// without anything being closed.
//
// The supervisor opens components, listeners, locks and the control device of
// geom_gate, makes and ends units, and passes descriptors to the worker, which
// serves. When the worker dies, or is replaced, the supervisor still holds
// everything: no device sees a last close, no lock is free for a moment, and
// the next worker is given the same descriptors. The supervisor itself is
// replaced by exec, which keeps them too.
//
//	Supervisor (root)                             worker: Client
//	  front ◄── administrators' connections
//	    └─────────────── door ──────────────────► Passed.Control
//	  methods ◄──────── fdrpc: questions ──────── Open, LockVolume, Acquire, Run, Grow, …
//	    │ names: what may be opened
//	    │ store: what is open, units, archive, memory
//	    └────────────── answers, descriptors ───► providers, locks, devices
//
// They talk over a pair of sockets (internal/fdrpc). Both sides may ask, and many
// questions may be open at once: some of the supervisor's answers have to wait for
// GEOM, which may wait for the worker. What a worker may ask is one table (methods.go).
//
// # Authority
//
// A worker talks to clients who may mean harm, and must not become root by what
// it asks for. So the supervisor takes the connections to the control socket
// itself (front), looks at who asks, reads which providers the request names
// (control.AccessOf), and hands the request on to the worker. It opens for the
// worker what the configuration names, what a request names while that lasts,
// what it made itself to let a volume grow, and what it noted itself of a device
// that a former daemon left (names). What a worker says names nothing: it has to
// fit. Units, backups and alerts are looked at in the same way (units.go, archive.go,
// space.go, memory.go). Through the control device of geom_gate, which it needs to serve
// devices, a worker reaches all units of the machine.
//
// # Privileges
//
// The supervisor stays root: it opens devices, makes units, and unmounts at
// shutdown. The worker becomes another user once it has its descriptors, and opens
// nothing by name after that: certificates and the configuration, when they are read
// again, are told by the supervisor, which also logs to syslogd(8) for it. So it can
// be confined (package confine).
//
// # Ends
//
// SIGTERM and SIGINT end both: units that nobody has open are destroyed, the
// others stay as they are for the next start. SIGUSR1 is for the system's
// shutdown: what is mounted from our devices is unmounted, after 20 s by force,
// and after 60 s the devices are destroyed by force; a worker that dies meanwhile is
// followed by another. SIGUSR2 is an upgrade: the
// worker ends, the supervisor executes its program as it is on disk now, and
// starts a worker of that, which goes on with the NBD clients that the other left (clients.go). A worker whose supervisor dies leaves everything
// to the next supervisor.
//
// What a worker has begun at disks must not come after what the next one writes. A system
// call ends before its process does; what a ring was asked for (geomlib.Rings) goes on. So a
// worker has one end of a pipe, which its rings keep open too, and is gone when the
// supervisor reads the end of that: no other one is started sooner, nor by an upgrade.
package supervisor
