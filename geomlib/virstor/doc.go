// Package virstor is the VIRSTOR class: a Volume made of components, an
// allocation map and an allocator. It is the engine of gvirstor; it knows
// nothing of how a volume is published.
//
// A read (Submit → run in submit.go, then read.go) pins each chunk that it touches,
// reads from the component and unpins it; what has no chunk is zeros. What is
// in the system's cache is read on the caller's goroutine, what another host has is asked of
// it there (start.go), and the rest is read on a worker.
//
// The life of a write, which is most of the package:
//
//	Submit → run (submit.go)
//	  every chunk allocated   → pin, write to the component, unpin, acknowledge (write.go)
//	  some chunk not allocated → the committer (commit.go): assign chunks, write
//	                             data and zeros, flush, write map sectors,
//	                             (mapwrite.go), publish, acknowledge
//	  no chunk left            → held (held.go) until space appears
//
// A chunk is pinned by an atomic add on its word in the chunk map (internal/chunkmap),
// and taken exclusively, for a move or a partial-sector write, by a bit in the
// same word. Only the committer writes map sectors.
//
// # Rooms
//
// What can be said without a volume has a package of its own below internal, which knows
// no volume:
//
//	alloc     which physical chunks are free, and who gets the next one
//	chunkmap  the map in memory: which chunk is where, and who uses it just now
//	mapio     the map on component 0: read, by one or several goroutines, and changed
//	extblock  the two slots of the extension block
//	member    which providers are members
//
// A Volume (volume.go) is made of these and of what works on them, in groups by what
// guards them.
//
// # Commit order
//
// A write that allocates goes through these steps, and each waits for the one before
// (commitOrder in commit.go has all of them):
//
//	data     to the new chunks, and zeros where they were not written: a chunk that the
//	         map names must not show what the disk held before
//	flush    of the components with new chunks: else the map could name a chunk whose
//	         data a loss of power took
//	map      the sectors with the new entries, and with no entry whose data is not flushed
//	publish  in memory: who looks at the map finds nothing that a death would take back
//	answer   of the requests: an acknowledged write is found again when the process dies
//
// Requests that wait for it are committed together: one flush a component and one write a
// map sector for all of them. A flush of the volume puts all that was acknowledged before
// it on stable storage, on all components. A chunk that was freed is given out again only
// when the map sector that freed it is durable and requests to it have ended, else two
// virtual chunks could have it after a crash. A move copies, flushes, writes the map,
// flushes, and only then frees the old chunk. One that snapshots name, and the chunks of
// all maps but the first volume's and of the directory, move by a record of the extension
// block, many at once (relocate.go).
//
// # Failures
//
// What the medium holds is known only from a flush that succeeded after the write. After
// one that failed, the system's cache may call clean what was lost. So flushes of that
// component fail until the volume is opened again; and opening a volume that was not
// closed in order flushes, drops the caches, reads the map, writes it again and flushes
// it before anything is acknowledged. A map sector that could not be written may hold the
// old or the new entries: its chunks are kept from all until it is written again. What is
// forbidden in which state is the table in condition.go.
//
// # Members
//
// Component 0 alone says who the members are (internal/member). Each has a random id and
// a generation, which rises with every opening for writing, orderly close and change of
// members, in two steps: the new generation is written to all members, component 0
// committing it; when it is durable on all, it is noted on all as settled. A component
// below the highest settled generation is stale, one that is not in the list is a
// stranger; both are named, and neither is served nor written to. Who leaves is cleared
// last, when its leaving is settled.
//
// # Fence
//
// The kernel class and this one must never run one volume at once. Before the first write
// every component gets version 2, which the kernel class refuses. Stop lifts the fence if
// the kernel class could go on: every component dense, none full after one that is not,
// counts exact and durable before any version 1. Changes of several sectors are noted in
// the extension block first (an intent), and done again or undone at the next opening.
//
// # Rules and tests
//
// Each rule is broken on purpose by a test that has to notice it: those of the commit
// order by other steps than commitOrder's (commit.go), the others by config.go's rule. Any
// public method of a Volume may be called beside any other.
package virstor
