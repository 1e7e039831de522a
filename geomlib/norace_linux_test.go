//go:build !race

package geomlib

// raceEnabled is set where the race detector drops pooled memory.
const raceEnabled = false
