//go:build race

package geomlib

const raceEnabled = true
