// Package virstor is the VIRSTOR class: a Volume made of components, an
// allocation map and an allocator. It is the engine of gvirstor; it knows
// nothing of how a volume is published.
//
// A read (Submit → run in submit.go, then read.go) pins each chunk that it touches,
// reads from the component and unpins it; what has no chunk is zeros. What is
// in the system's cache is read on the caller's goroutine, else on a worker.
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
// A chunk is pinned by an atomic add on its word in the chunk map (chunkmap.go),
// and taken exclusively, for a move or a partial-sector write, by a bit in the
// same word. Only the committer writes map sectors.
package virstor
