package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/options"
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

func TestEachLineOfTheJournalHasItsPriority(t *testing.T) {
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	say := func(o *options.Options, stream string) string {
		var b strings.Builder
		log := slog.New(lineHandler(o, &b, func(string) string { return stream })).With("a", 1).WithGroup("g")
		log.Error("one", "b", 2)
		log.Warn("two")
		log.Info("three")
		log.Debug("four")
		return b.String()
	}
	journal := strings.Split(say(&options.Options{Level: level}, "8:1234"), "\n")
	for i, want := range []string{"<3>time=", "<4>time=", "<6>time=", "<7>time="} {
		if !strings.HasPrefix(journal[i], want) || !strings.Contains(journal[i], " a=1") {
			t.Errorf("%q, want %q", journal[i], want)
		}
	}
	if !strings.HasSuffix(journal[0], "msg=one a=1 g.b=2") {
		t.Errorf("%q", journal[0])
	}
	if text := say(&options.Options{Level: level}, ""); strings.Contains(text, "<") {
		t.Errorf("without a journal %q", text)
	}
	for line := range strings.Lines(say(&options.Options{Level: level, LogJSON: true}, "8:1234")) {
		var record struct {
			Level string
			A     int
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.A != 1 || record.Level == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
}

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
