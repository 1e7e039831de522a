// Package fdrpc is a connection between two processes of one machine, over which both may
// ask, and descriptors go along with the answers.
//
//	Call ──question: id, method, JSON──►  Methods[method] ──► Reply
//	     ◄──answer: id, JSON or error, with descriptors──
//
// A message is a length of four bytes, big endian, with descriptors beside it, and as
// many bytes of JSON. Many questions may be open at once, and each is answered on a
// goroutine of its own; how many, of how many bytes, and how long the other side may
// leave a message where it is, is bounded, since it may mean harm.
package fdrpc
