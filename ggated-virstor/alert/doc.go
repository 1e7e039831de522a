// Package alert tells administrators in time that a volume runs out of space.
//
// A Monitor looks at snapshots of a volume and says which levels were crossed,
// each once until it is left again. A Dispatcher takes what it says to where
// people see it. Neither touches a volume: what feeds them does.
package alert
