// Package daemon assembles volumes from providers, opens them, publishes
// them, and answers the control socket. A Daemon is the control.Backend of a
// control.Server, and the web.Source and web.Health of a web.Server.
//
//	names ──Opener──► loose providers ──virstor.Assemble──► a volume is complete
//	                                                            │ its lock (Opener)
//	                                                            ▼
//	  Publisher.Publish ◄────────────────── virstor.Open ──► served: one volume in service
//	                                                            │
//	                      watcher    its events, to publications and to those who watch
//	                      space.Watch, space.Spares   its space
//	                      autoBackup its last backups (Archive)
//	                      notes      what this host served of it (Memory)
//
// A verb that concerns the engine alone is done by package verbs, which gvirstor(8) uses
// for volumes that are stopped; what concerns publications, several volumes, or spares is
// done here, in the file of its name. What a former daemon left open is taken over
// (takeover.go): it is served for reading first, since opening anything for writing may
// have to wait for it.
//
// # Locks
//
// Daemon.verbs serialises what changes the set of volumes and which providers are open;
// it is taken before anything of a volume. Daemon.mu guards the maps and the options, and
// nothing that waits for a disk or a client is called under it. What a volume, its space
// or a publication calls back takes mu at most, and never verbs.
package daemon
