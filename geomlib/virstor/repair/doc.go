// Package repair puts right what package check found and what can be put right
// without guessing; what cannot is decided by the user or refused.
//
// Nothing of a volume is written until all that is wrong with it can be mended.
// Whatever a write replaces is first saved, durably, in a Journal, from which
// Undo brings it back. The order of writes leaves the volume, if the power fails
// in the middle, one that check and repair understand or that Undo brings back, and
// never one that the kernel class would take while it is being changed: it is
// fenced first.
package repair
