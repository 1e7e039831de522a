package main

import (
	"context"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"sync"

	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// newLogger logs to the standard error output or to syslog(3).
func newLogger(o *options.Options) *slog.Logger {
	if !o.Syslog {
		return slog.New(lineHandler(o, os.Stderr, os.Getenv))
	}
	return slog.New(&syslogHandler{level: o.Level, to: newSyslogger()})
}

// lineHandler writes a line for each record, in the form that o says. Where systemd's
// journal reads it, which its environment tells, each begins with its priority as
// sd-daemon(3) has it.
func lineHandler(o *options.Options, w io.Writer, getenv func(string) string) slog.Handler {
	opt := &slog.HandlerOptions{Level: o.Level}
	if o.LogJSON {
		return slog.NewJSONHandler(w, opt) // which has the level as a member
	}
	if getenv("JOURNAL_STREAM") == "" {
		return slog.NewTextHandler(w, opt)
	}
	p := &prioritizing{w: w}
	return &journalHandler{slog.NewTextHandler(p, opt), p}
}

// prioritizing is a writer of lines that each begin with a priority.
type prioritizing struct {
	w        io.Writer
	mu       sync.Mutex // held from the setting of priority to the write
	priority string
}

// Write implements io.Writer, for a line.
func (p *prioritizing) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.priority), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// journalHandler has each record's line begin with its priority.
type journalHandler struct {
	slog.Handler
	to *prioritizing
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.to.mu.Lock()
	defer h.to.mu.Unlock()
	switch {
	case r.Level >= slog.LevelError:
		h.to.priority = "<3>"
	case r.Level >= slog.LevelWarn:
		h.to.priority = "<4>"
	case r.Level >= slog.LevelInfo:
		h.to.priority = "<6>"
	default:
		h.to.priority = "<7>"
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.Handler.WithAttrs(attrs), h.to}
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.Handler.WithGroup(name), h.to}
}

func newSyslogger() *syslogger { return &syslogger{dial: dialSyslog, otherwise: os.Stderr} }

// newWorkerLogger is newLogger for a worker, whose supervisor reaches syslogd(8)
// when it is started again, and the worker does not.
func newWorkerLogger(o *options.Options, c *supervisor.Client) *slog.Logger {
	if !o.Syslog {
		return newLogger(o)
	}
	dial := func() (prioritized, error) { return relayed{c.Log}, nil }
	return slog.New(&syslogHandler{level: o.Level, to: &syslogger{dial: dial, otherwise: os.Stderr}})
}

// relayed is a prioritized that another process stands behind.
type relayed struct {
	log func(level slog.Level, line string) error
}

func (r relayed) Err(line string) error     { return r.log(slog.LevelError, line) }
func (r relayed) Warning(line string) error { return r.log(slog.LevelWarn, line) }
func (r relayed) Info(line string) error    { return r.log(slog.LevelInfo, line) }
func (r relayed) Debug(line string) error   { return r.log(slog.LevelDebug, line) }

func dialSyslog() (prioritized, error) {
	return syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "ggated-virstor")
}

// prioritized is what is used of a syslog.Writer.
type prioritized interface {
	Err(string) error
	Warning(string) error
	Info(string) error
	Debug(string) error
}

// syslogger writes lines to syslogd(8) as soon and as long as it is there, and
// elsewhere otherwise: that it is restarted must not end a daemon that serves
// disks.
type syslogger struct {
	dial      func() (prioritized, error)
	otherwise io.Writer

	mu sync.Mutex
	w  prioritized // nil until dial succeeds; connects again by itself
}

func (s *syslogger) write(level slog.Level, line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.send(level, line)
	if err != nil {
		_, err = io.WriteString(s.otherwise, line+"\n")
	}
	return err
}

func (s *syslogger) send(level slog.Level, line string) error {
	if s.w == nil {
		w, err := s.dial()
		if err != nil {
			return err
		}
		s.w = w
	}
	switch {
	case level >= slog.LevelError:
		return s.w.Err(line)
	case level >= slog.LevelWarn:
		return s.w.Warning(line)
	case level >= slog.LevelInfo:
		return s.w.Info(line)
	}
	return s.w.Debug(line)
}

// syslogHandler gives each record the priority that fits its level.
type syslogHandler struct {
	level slog.Leveler
	to    *syslogger
	attrs []slog.Attr
	group string
}

func (h *syslogHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *syslogHandler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	for _, a := range h.attrs {
		line += " " + a.String()
	}
	r.Attrs(func(a slog.Attr) bool {
		line += " " + h.group + a.String()
		return true
	})
	return h.to.write(r.Level, ondisk.Printable(line))
}

func (h *syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &n
}

func (h *syslogHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.group += name + "."
	return &n
}
