// Package virstor is the VIRSTOR class: a Volume made of components, an
// allocation map and an allocator. It is the engine of gvirstor; it knows
// nothing of how a volume is published.
package virstor

type reqState struct{}
