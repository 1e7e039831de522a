// Package space is what happens when the space of a volume gets short: people are
// told, and spares and new files are added.
//
//	engine: an event ──► Watch ──Figures──► Monitor   which levels are crossed, each
//	     a tick ───────►   │                   │      once until it is left again
//	                       │ ◄────Alerts───────┘      (levels, forecast)
//	                       ├──► the log, Host.Publish, counts
//	                       ├──► Hook ──► Runner       the administrator's command
//	                       │                          (Shell, or the supervisor)
//	                       ▼
//	                     Spares ──► Host.Open, MayAdd, Add
//	                       └──────► Grower            makes files (FileGrower, or the
//	                                                  supervisor)
//
// A Watch and its Spares are one volume's, and are made by New. The Host is the
// daemon, of which nothing else is known here. Monitor, Hook and FileGrower touch no
// volume.
//
// # Locks
//
// A verb of the daemon that labels a spare or takes one away holds the daemon's lock of
// verbs; what is added here by itself does not, and the engine puts additions one
// after the other. So no method of a Host may take that lock. Spares.using is held
// while Host.Add is called, Watch.mu and Spares.mu never are while anything of the Host
// is.
package space
