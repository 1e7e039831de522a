package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// Client speaks to a daemon. Its calls may be made at once by many goroutines.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client of the daemon at the socket path. Nothing is dialled
// until a call.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Status asks for everything. ErrNoDaemon when nobody listens.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &st)
	return st, err
}

// Do runs a verb on a volume, or on the daemon when volume is empty.
func (c *Client) Do(ctx context.Context, volume, verb string, r Request) (Reply, error) {
	path := "/v1/" + verb
	if volume != "" {
		path = "/v1/volumes/" + url.PathEscape(volume) + "/" + verb
	}
	var reply Reply
	err := c.call(ctx, http.MethodPost, path, r, &reply)
	return reply, err
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%w (nothing listens on %s)", ErrNoDaemon, c.path)
		}
		return fmt.Errorf("ask the daemon at %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return decodeError(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of the daemon at %s: %w", c.path, err)
	}
	return nil
}

func decodeError(resp *http.Response) error {
	var w wireError
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&w); err != nil || w.Text == "" {
		return &Error{ErrInternal, "the daemon answered " + resp.Status}
	}
	for _, k := range kinds {
		if k.name == w.Kind {
			return &Error{k.err, w.Text}
		}
	}
	return &Error{ErrInternal, w.Text}
}
