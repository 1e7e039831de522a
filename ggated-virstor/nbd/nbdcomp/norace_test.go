//go:build !race

package nbdcomp

const raceEnabled = false
