package main

import (
	"context"
	"fmt"
	"log/slog"
	"log/syslog"
	"os"
)

// newLogger logs to the standard error output or to syslog(3).
func newLogger(o options) (*slog.Logger, error) {
	if !o.syslog {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.level})), nil
	}
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "ggated-virstor")
	if err != nil {
		return nil, fmt.Errorf("--syslog: %w", err)
	}
	return slog.New(&syslogHandler{level: o.level, w: w}), nil
}

// syslogHandler gives each record the priority that fits its level.
type syslogHandler struct {
	level slog.Leveler
	w     *syslog.Writer
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
	switch {
	case r.Level >= slog.LevelError:
		return h.w.Err(line)
	case r.Level >= slog.LevelWarn:
		return h.w.Warning(line)
	case r.Level >= slog.LevelInfo:
		return h.w.Info(line)
	}
	return h.w.Debug(line)
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
