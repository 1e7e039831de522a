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
)

const maxAnswer = 256 << 20 // 65535 components fit well within

// Client asks a running daemon. Its methods may be called by many goroutines.
// A failure that the daemon tells is an *Error.
type Client struct {
	path string
	http *http.Client
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
	return &Client{path, &http.Client{Transport: transport}}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for everything.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "status", nil, &s)
}

// Volume asks for one volume.
func (c *Client) Volume(ctx context.Context, name string) (v VolumeStatus, err error) {
	return v, c.call(ctx, http.MethodGet, "volumes/"+url.PathEscape(name), nil, &v)
}

// Add makes providers components of a volume.
func (c *Client) Add(ctx context.Context, name string, r AddRequest) error {
	return c.verb(ctx, name, "add", r, nil)
}

// Remove takes providers out of a volume.
func (c *Client) Remove(ctx context.Context, name string, r RemoveRequest) error {
	return c.verb(ctx, name, "remove", r, nil)
}

// Stop ends the service of a volume.
func (c *Client) Stop(ctx context.Context, name string, r StopRequest) (a StopResult, err error) {
	return a, c.verb(ctx, name, "stop", r, &a)
}

// Identify gives a volume another name or id.
func (c *Client) Identify(ctx context.Context, name string, r IdentifyRequest) (v VolumeStatus, err error) {
	return v, c.verb(ctx, name, "identify", r, &v)
}

// Reserve changes how many chunks ordinary writes leave free.
func (c *Client) Reserve(ctx context.Context, name string, r ReserveRequest) error {
	return c.verb(ctx, name, "reserve", r, nil)
}

// Spare makes providers spares of a volume, or no spares any more.
func (c *Client) Spare(ctx context.Context, name string, r SpareRequest) error {
	return c.verb(ctx, name, "spare", r, nil)
}

// TestAlert has an alert sent through every channel.
func (c *Client) TestAlert(ctx context.Context, name string) (a AlertTest, err error) {
	return a, c.verb(ctx, name, "test-alert", struct{}{}, &a)
}

// Clients are who is connected.
func (c *Client) Clients(ctx context.Context) (a Clients, err error) {
	return a, c.call(ctx, http.MethodGet, "clients", nil, &a)
}

// Disconnect ends a client's connection.
func (c *Client) Disconnect(ctx context.Context, r DisconnectRequest) error {
	return c.call(ctx, http.MethodPost, "disconnect", r, nil)
}

// Serve has the daemon look at providers.
func (c *Client) Serve(ctx context.Context, r ServeRequest) (a ServeResult, err error) {
	return a, c.call(ctx, http.MethodPost, "serve", r, &a)
}

// Release has the daemon close providers that it does not serve.
func (c *Client) Release(ctx context.Context, r ReleaseRequest) error {
	return c.call(ctx, http.MethodPost, "release", r, &struct{}{})
}

// StartJob starts a long job on a volume.
func (c *Client) StartJob(ctx context.Context, name string, r JobRequest) (j JobStatus, err error) {
	return j, c.verb(ctx, name, "jobs", r, &j)
}

// Job tells how far a job is.
func (c *Client) Job(ctx context.Context, id string) (j JobStatus, err error) {
	return j, c.call(ctx, http.MethodGet, "jobs/"+url.PathEscape(id), nil, &j)
}

// CancelJob asks a job to end.
func (c *Client) CancelJob(ctx context.Context, id string) (j JobStatus, err error) {
	return j, c.call(ctx, http.MethodDelete, "jobs/"+url.PathEscape(id), nil, &j)
}

func (c *Client) verb(ctx context.Context, name, verb string, q, a any) error {
	return c.call(ctx, http.MethodPost, "volumes/"+url.PathEscape(name)+"/"+verb, q, a)
}

// call sends q, unless it is nil, and decodes the answer into a, unless it is nil.
func (c *Client) call(ctx context.Context, method, path string, q, a any) error {
	resp, err := c.send(ctx, method, path, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of ggated-virstor: %w", err)
	}
	if a == nil {
		return nil
	}
	if err := json.Unmarshal(b, a); err != nil {
		return fmt.Errorf("understand the answer of ggated-virstor: %w", err)
	}
	return nil
}

// send returns the answer when it is a good one.
func (c *Client) send(ctx context.Context, method, path string, q any) (*http.Response, error) {
	var body io.Reader
	if q != nil {
		b, err := json.Marshal(q)
		if err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ggated-virstor/v1/"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask ggated-virstor: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL in url.Error means nothing to the reader; the socket does.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("ask ggated-virstor on %s: %w", c.path, err)
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
	return nil, fmt.Errorf("ggated-virstor answers %q to %s %s", resp.Status, method, path)
}

// EventStream are the daemon's events as they happen.
type EventStream struct {
	body io.ReadCloser
	scan *bufio.Scanner
}

// Events opens the stream, which ends with ctx.
func (c *Client) Events(ctx context.Context) (*EventStream, error) {
	resp, err := c.send(ctx, http.MethodGet, "events", nil)
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
