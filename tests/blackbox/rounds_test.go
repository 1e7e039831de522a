package blackbox

import (
	"fmt"
	"syscall"
	"time"
)

// startRound kills the daemon under load, and some of its successors before
// they serve.
func (s *session) startRound() {
	s.t.Helper()
	l := s.begin(many)
	s.instant()
	s.kill()
	s.counts.daemons.Add(1)
	s.dead(l)
	for range 1 + s.rng.IntN(4) {
		s.launch(s.flags...)
		time.Sleep(time.Duration(s.rng.IntN(30000)) * time.Microsecond)
		s.kill()
		s.counts.starts.Add(1)
	}
	s.start(s.flags...)
}

// upgradeRound has the supervisor replace itself and its worker under load, of which no
// client notices anything.
func (s *session) upgradeRound() {
	s.t.Helper()
	l := s.begin(500)
	s.instant()
	worker := s.worker()
	s.signal(syscall.SIGUSR2, s.cmd.Process.Pid)
	s.nextWorker(worker)
	s.counts.upgrades.Add(1)
	s.some(1)
	s.alive(l)
}

// usage is what the process that serves has. What the system does not tell is 0.
type usage struct{ files, goroutines, residentKB int }

func (s *session) usage() usage {
	s.t.Helper()
	u := usage{files: s.openFiles(), goroutines: s.goroutines()}
	if u.files > 0 {
		u.residentKB = residentKB(s.t, s.worker())
	}
	return u
}

// back waits until the process has no more than before; of memory, what its
// buffers may keep.
func (s *session) back(before usage) {
	s.t.Helper()
	const kept = 96 << 10
	var now usage
	s.until(fmt.Sprintf("the process has as little as before (%+v)", before), func() bool {
		now = s.usage()
		return now.files <= before.files && now.goroutines <= before.goroutines && now.residentKB <= before.residentKB+kept
	})
}

func (s *session) goroutines() int {
	s.t.Helper()
	return int(figure(s.t, s.scrape(), "go_goroutines"))
}
