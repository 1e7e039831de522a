package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

const (
	maxBody      = 1 << 20
	maxHeader    = 16 << 10
	maxProviders = ondisk.MaxComponents
)

// limits are the server's times. Tests shorten them.
type limits struct {
	read      time.Duration // a request must have arrived
	write     time.Duration // one piece of an answer must have left
	idle      time.Duration // a connection may do nothing
	heartbeat time.Duration // an event stream says something
}

// Server answers the control API.
type Server struct {
	backend Backend
	log     *slog.Logger
	limits  limits
	http    http.Server
	done    chan struct{} // closed: event streams end
}

// NewServer makes a server that asks b. A nil log discards.
func NewServer(b Backend, log *slog.Logger) *Server {
	return newServer(b, log, limits{
		read: 10 * time.Second, write: 10 * time.Second, idle: 2 * time.Minute, heartbeat: 15 * time.Second,
	})
}

func newServer(b Backend, log *slog.Logger, l limits) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{backend: b, log: log, limits: l, done: make(chan struct{})}
	s.http = http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: l.read,
		ReadTimeout:       l.read,
		IdleTimeout:       l.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.http.RegisterOnShutdown(func() { close(s.done) })
	return s
}

// Serve answers what comes through l until Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown ends the event streams, lets requests finish until ctx ends, and
// closes the listener. It is called once.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop the control server: %w", err), s.http.Close())
	}
	return nil
}

// routes are the table of verbs and the stream of events.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range rows() {
		mux.HandleFunc(r.pattern(), r.handler(s))
	}
	mux.HandleFunc("GET "+version+"events", s.events)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, Errorf(NotFound, "%s %s: this daemon has no such request; gvirstor and ggated-virstor must be of one version", r.Method, r.URL.Path))
	})
	return mux
}

// answer decodes the request, asks do, and writes what comes of it. {name} of the
// pattern is do's third argument.
func answer[Q, A any](s *Server, w http.ResponseWriter, r *http.Request, do func(context.Context, Verbs, string, Q) (A, error)) {
	var q Q
	if r.Method == http.MethodPost {
		if err := decode(http.MaxBytesReader(w, r.Body, maxBody), &q); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	// The time to read a request is over; it must not cut short the time to
	// answer it.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		s.log.Debug("control: clear read deadline", "error", err)
	}
	s.nameVolume(w, r)
	a, err := do(r.Context(), s.backend, r.PathValue("name"), q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, http.StatusOK, a)
}

// fail answers err.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	kind := KindOf(err)
	if kind == Internal {
		s.log.Warn("control request failed", "request", r.Method+" "+r.URL.Path, "error", err)
	}
	s.write(w, httpStatus(kind), Error{Kind: kind, Code: CodeOf(err), Text: err.Error()})
}

func httpStatus(k Kind) int {
	switch k {
	case NotFound:
		return http.StatusNotFound
	case Busy:
		return http.StatusConflict
	case Invalid:
		return http.StatusBadRequest
	case NoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func (s *Server) write(w http.ResponseWriter, status int, a any) {
	b, err := MarshalJSON(a)
	if err != nil {
		s.log.Error("control: encode an answer", "error", err)
		status, b = http.StatusInternalServerError, []byte(`{"kind":"internal","text":"the answer could not be encoded"}`)
	}
	// Best effort: a writer without deadlines only means an untimed write.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.write))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.log.Debug("control: client went away", "error", err)
	}
}

// events streams events, one JSON object a line, with empty lines between
// them while nothing happens, so that both sides notice a dead peer.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	events, err := s.backend.Subscribe(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // as in answer
	w.Header().Set("Content-Type", "application/x-ndjson")
	beat := time.NewTicker(s.limits.heartbeat)
	defer beat.Stop()
	line := []byte("\n") // at once: it tells the client that the stream stands
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(s.limits.write))
		if _, err := w.Write(line); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		case <-beat.C:
			line = []byte("\n")
		case e, ok := <-events:
			if !ok {
				return
			}
			b, err := MarshalJSON(e)
			if err != nil {
				s.log.Error("control: encode an event", "error", err)
				continue
			}
			line = append(b, '\n')
		}
	}
}
