package virstor

// A serial volume has no goroutines of its own. What waits is done by whoever
// waits for it, one thing after the other, so that what a test asks for decides
// alone in which order the disks are asked.

// turn does one thing that waits, and reports whether there was one.
func (v *Volume) turn() bool {
	if v.workers.doOne() || v.committer.doOne() {
		return true
	}
	for _, h := range v.further() {
		if h.committer.doOne() {
			return true
		}
	}
	return false
}

// catchUp does all that waits in a serial volume.
func (v *Volume) catchUp() {
	if v.cfg.serial {
		for v.turn() {
		}
	}
}

// doOne does the next job on the caller's goroutine, and reports whether there was
// one.
func (w *workers) doOne() bool {
	w.mu.Lock()
	if w.n == 0 {
		w.mu.Unlock()
		return false
	}
	j := w.takeLocked()
	w.mu.Unlock()
	j.perform()
	return true
}

// doOne does what waits for the committer on the caller's goroutine, and reports
// whether there was anything.
func (k *committer) doOne() bool {
	more, _ := k.next()
	if more {
		k.run()
	}
	return more
}

// runHere runs, on the caller's goroutine, a job that was started and has no
// goroutine of its own.
func (r *jobRunner) runHere() {
	r.mu.Lock()
	run := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	if run != nil {
		run()
	}
}
