package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sys/unix"
)

const maxAnswer = 256 << 20 // ondisk.MaxComponents fit well within

// Client asks a daemon, or what stands for one. Its methods may be called by many
// goroutines. A failure that the daemon tells is an *Error.
type Client struct {
	do   func(context.Context, Call) error
	wire *wire // nil: no daemon is behind do
}

// Call is one use of a verb, on its way to whoever answers it.
type Call struct {
	Verb    string // "add", "remove", …
	Name    string // of the volume or the job, empty where the verb is about none
	Request any    // None where there is none
	Answer  any    // a pointer to what is to be filled in

	method, path string
}

// Dial makes sure that a daemon listens on the socket at path. ErrNotRunning:
// none does.
func Dial(path string) (*Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	conn.Close()
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		DisableCompression: true,
		MaxIdleConns:       2,
	}
	w := &wire{path, http.Client{Transport: transport}}
	return &Client{w.do, w}, nil
}

// NewClient makes a Client whose verbs do answers, for what stands for a daemon. It
// has no events.
func NewClient(do func(context.Context, Call) error) *Client { return &Client{do: do} }

// Close lets go of idle connections.
func (c *Client) Close() {
	if c.wire != nil {
		c.wire.http.CloseIdleConnections()
	}
}

// wire is the way to a daemon: HTTP on its socket.
type wire struct {
	path string
	http http.Client
}

// maxTries bounds how often a request is made: what made one daemon end may end the next.
const maxTries = 3

// do makes the request of a verb, and makes it again where a daemon ended that had it, as in
// an upgrade, and that does no harm.
func (w *wire) do(ctx context.Context, c Call) error {
	for try := 1; ; try++ {
		err := w.try(ctx, c)
		if err == nil || try == maxTries || ctx.Err() != nil || !mayRepeat(c, err) {
			return err
		}
	}
}

// mayRepeat reports whether a request that ended so may be made again: nobody has begun it,
// or it changes nothing and whoever had it is gone.
func mayRepeat(c Call, err error) bool {
	switch CodeOf(err) {
	case NotBegun:
		return true
	case Unanswered:
		return c.method == http.MethodGet
	}
	return c.method == http.MethodGet &&
		(errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE))
}

// try sends the request of a verb and reads its answer.
func (w *wire) try(ctx context.Context, c Call) error {
	resp, err := w.send(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of ggated-virstor: %w", err)
	}
	if err := json.Unmarshal(b, c.Answer); err != nil {
		return fmt.Errorf("understand the answer of ggated-virstor: %w", err)
	}
	return nil
}

// send returns the answer when it is a good one.
func (w *wire) send(ctx context.Context, c Call) (*http.Response, error) {
	var body io.Reader
	if c.method == http.MethodPost {
		b, err := json.Marshal(c.Request)
		if err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	path := strings.Replace(c.path, "{name}", url.PathEscape(c.Name), 1)
	req, err := http.NewRequestWithContext(ctx, c.method, "http://ggated-virstor"+version+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask ggated-virstor: %w", err)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		// The URL in url.Error means nothing to the reader; the socket does.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("ask ggated-virstor on %s: %w", w.path, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e Error
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err == nil && json.Unmarshal(b, &e) == nil && e.Text != "" {
		return nil, &e
	}
	return nil, fmt.Errorf("ggated-virstor answers %q to %s %s", resp.Status, c.method, path)
}

// EventStream are the daemon's events as they happen.
type EventStream struct {
	body io.ReadCloser
	scan *bufio.Scanner
}

// Events opens the stream, which ends with ctx.
func (c *Client) Events(ctx context.Context) (*EventStream, error) {
	if c.wire == nil {
		return nil, errors.New("there is no daemon that tells of events")
	}
	resp, err := c.wire.send(ctx, Call{method: http.MethodGet, path: "events"})
	if err != nil {
		return nil, err
	}
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, maxBody)
	return &EventStream{resp.Body, scan}, nil
}

// Next waits for an event. io.EOF: the daemon ended the stream.
func (s *EventStream) Next() (Event, error) {
	for s.scan.Scan() {
		line := s.scan.Bytes()
		if len(line) == 0 {
			continue // a sign of life
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return e, fmt.Errorf("understand an event of ggated-virstor: %w", err)
		}
		return e, nil
	}
	if err := s.scan.Err(); err != nil {
		return Event{}, fmt.Errorf("read the events of ggated-virstor: %w", err)
	}
	return Event{}, io.EOF
}

// Close ends the stream.
func (s *EventStream) Close() error { return s.body.Close() }
