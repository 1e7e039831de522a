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
// They talk over a pair of sockets, in messages of a length and JSON, with
// descriptors beside the length. Both sides may ask, and many questions may be
// open at once: some of the supervisor's answers have to wait for GEOM,
// which may wait for the worker.
package supervisor
