// Package member judges which providers are a volume: who is a true member, who is
// stale, who is a stranger, and whether what is there are two histories of one
// volume. It knows metadata and extension records, and does no I/O: whoever opens,
// checks or mends a volume asks it, so that all of them decide alike.
//
// The rules are those of gvirstor(5). A set is judged from a provider that claims to
// be component 0: it says, by the checksum of their member ids, who belongs to it.
// The index in a provider's own metadata is only a hint where to look, because a
// member that takes no writes keeps the index it had.
package member
