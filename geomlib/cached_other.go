//go:build !linux

package geomlib

// cacheState is empty: no system call here reads only what needs no wait.
type cacheState struct{}
