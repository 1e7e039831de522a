// Package check verifies volumes on given providers without writing to them:
// the metadata of every component against each other and the providers, every
// entry of the allocation map, the extension block, the fence, and what the
// kernel class would make of it all. It works when nothing can be assembled, too.
//
// Inspect makes a Report. Its findings are for people and scripts; its volumes
// carry what package repair needs to mend what can be mended without guessing.
package check
