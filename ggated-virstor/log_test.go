package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// syslogd is one that comes and goes.
type syslogd struct {
	down  bool
	lines []string
}

var errDown = errors.New("syslogd is down")

func (s *syslogd) say(line string) error {
	if s.down {
		return errDown
	}
	s.lines = append(s.lines, line)
	return nil
}

func (s *syslogd) Err(l string) error     { return s.say("err " + l) }
func (s *syslogd) Warning(l string) error { return s.say("warning " + l) }
func (s *syslogd) Info(l string) error    { return s.say("info " + l) }
func (s *syslogd) Debug(l string) error   { return s.say("debug " + l) }

func TestLinesGoElsewhereUntilSyslogdIsThere(t *testing.T) {
	d := &syslogd{down: true}
	var otherwise strings.Builder
	to := &syslogger{otherwise: &otherwise, dial: func() (prioritized, error) {
		if d.down {
			return nil, errDown
		}
		return d, nil
	}}
	log := slog.New(&syslogHandler{level: slog.LevelInfo, to: to})
	log.Info("one", "at", 1)
	d.down = false
	log.Warn("two")
	log.With("disk", "ada1").Error("three")
	log.Debug("not logged")
	d.down = true
	log.Error("four")
	d.down = false
	log.Info("five")
	if got, want := otherwise.String(), "one at=1\nfour\n"; got != want {
		t.Errorf("elsewhere %q, want %q", got, want)
	}
	if got, want := strings.Join(d.lines, ", "), "warning two, err three disk=ada1, info five"; got != want {
		t.Errorf("syslogd got %q, want %q", got, want)
	}
}
