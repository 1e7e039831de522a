//go:build race

package nbd

// raceEnabled is set where the race detector allocates and drops pooled memory.
const raceEnabled = true
