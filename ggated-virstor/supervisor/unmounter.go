package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// unmounter unmounts in the background: where a volume is full, or a disk does
// not answer, unmount(2) returns when the device is destroyed, or never.
type unmounter struct {
	mounts
	running map[string]time.Time // unmount has not returned, and began then
	failed  map[string]error     // what it returned last, unless that was success
	results chan unmounted
	over    chan struct{} // closed: nobody takes results any more
}

type unmounted struct {
	path  string
	force bool
	err   error
}

func (u *unmounter) begin(path string, force bool) {
	if u.waits(path, 0) {
		return
	}
	u.running[path] = time.Now()
	go func() {
		r := unmounted{path, force, u.unmount(path, force)}
		select {
		case u.results <- r:
		case <-u.over:
		}
	}()
}

// waits reports whether an unmount of path is under way for that long.
func (u *unmounter) waits(path string, long time.Duration) bool {
	begun, ok := u.running[path]
	return ok && time.Since(begun) >= long
}

// waitsAny is waits of any path.
func (u *unmounter) waitsAny(long time.Duration) bool {
	for path := range u.running {
		if u.waits(path, long) {
			return true
		}
	}
	return false
}

func (u *unmounter) note(r unmounted, log *slog.Logger) {
	delete(u.running, r.path)
	delete(u.failed, r.path)
	if r.err != nil {
		u.failed[r.path] = fmt.Errorf("unmount %s: %w", r.path, r.err)
		return
	}
	log.Info("unmounted", "path", r.path, "force", r.force)
}

// err is what is not unmounted, and why. An attempt that is under way takes nothing
// away from what the one before it ended with: it may have begun a moment ago.
func (u *unmounter) err() error {
	var all []error
	for _, path := range slices.Sorted(maps.Keys(u.running)) {
		if u.failed[path] == nil {
			all = append(all, fmt.Errorf("unmount %s: it does not end", path))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(u.failed)) {
		all = append(all, u.failed[path])
	}
	return errors.Join(all...)
}
