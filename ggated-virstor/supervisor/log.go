package supervisor

import (
	"context"
	"log/slog"
	"strings"
	"time"
	"unicode"
)

// methodLog has the supervisor log a line of its worker's, which cannot reach
// syslogd(8). logArgs
const methodLog = "log"

type logArgs struct {
	Level slog.Level `json:"level"`
	Line  string     `json:"line"`
}

// maxLine bounds a line of a worker, in bytes.
const maxLine = 16 << 10

// logPatience is how long a worker waits for its line to be logged.
const logPatience = 5 * time.Second

// logLine answers methodLog. A line is one line, whatever the worker makes of it.
func (s *Supervisor) logLine(a logArgs) error {
	if s.opt.Line == nil {
		return nil
	}
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(a.Line[:min(len(a.Line), maxLine)], "?"))
	return s.opt.Line(a.Level, line)
}

// Log has the supervisor log a line.
func (c *Client) Log(level slog.Level, line string) error {
	ctx, cancel := context.WithTimeout(c.peer.Context(), logPatience)
	defer cancel()
	_, err := c.peer.Call(ctx, methodLog, logArgs{level, line}, nil)
	return err
}
