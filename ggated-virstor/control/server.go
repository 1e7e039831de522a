package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Backend is what the server drives. Its errors unwrap to the kinds of this
// package; others count as internal.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	// Do runs a verb on a volume; an empty volume concerns the daemon.
	Do(ctx context.Context, volume, verb string, r Request) (Reply, error)
}

// Limits of what a peer can make the server hold.
const (
	maxBody        = 1 << 20
	requestTimeout = 10 * time.Second
	idleTimeout    = 2 * time.Minute
)

// Server answers on the control socket.
type Server struct {
	http http.Server
	b    Backend
	log  *slog.Logger
}

// NewServer makes a server for b.
func NewServer(b Backend, log *slog.Logger) *Server {
	s := &Server{b: b, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/volumes/{name}", s.volume)
	mux.HandleFunc("POST /v1/volumes/{name}/{verb}", s.do)
	mux.HandleFunc("POST /v1/{verb}", s.do)
	s.http = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Listen makes the socket, of mode 0600. A socket that nobody answers on is
// replaced; a live one is an error.
func Listen(path string) (net.Listener, error) {
	if _, err := os.Lstat(path); err == nil {
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("control socket %s: another daemon answers on it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket %s: remove the stale one: %w", path, err)
		}
	}
	// Made under another name, it is never reachable with a wider mode.
	private := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(private)
	l, err := net.Listen("unix", private)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(private, 0o600), os.Rename(private, path)); err != nil {
		l.Close()
		_ = os.Remove(private)
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return l, nil
}

// Serve answers on l until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Shutdown lets running calls end until ctx does, then closes them.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.b.Status(r.Context())
	s.answer(w, st, err)
}

func (s *Server) volume(w http.ResponseWriter, r *http.Request) {
	st, err := s.b.Status(r.Context())
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	name := r.PathValue("name")
	for _, v := range st.Volumes {
		if v.Name == name {
			s.answer(w, v, nil)
			return
		}
	}
	s.answer(w, nil, &Error{ErrNotFound, fmt.Sprintf("Don't know anything about '%s'", name)})
}

func (s *Server) do(w http.ResponseWriter, r *http.Request) {
	req, err := decodeRequest(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.answer(w, nil, &Error{ErrInvalid, fmt.Sprintf("request body: %v", err)})
		return
	}
	// The verb may take long; its client hanging up cancels it.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
	reply, err := s.b.Do(r.Context(), r.PathValue("name"), r.PathValue("verb"), req)
	s.answer(w, reply, err)
}

// decodeRequest reads one JSON object; an empty body is an empty request.
func decodeRequest(body io.Reader) (Request, error) {
	var req Request
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil && !errors.Is(err, io.EOF) {
		return Request{}, err
	}
	return req, nil
}

// wireError is an error as it is sent.
type wireError struct {
	Kind string `json:"kind"`
	Text string `json:"error"`
}

func (s *Server) answer(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		kind := kinds[len(kinds)-1]
		for _, k := range kinds {
			if errors.Is(err, k.err) {
				kind = k
				break
			}
		}
		status, body = kind.status, wireError{kind.name, err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.Debug("control answer not sent", "error", err)
	}
}
