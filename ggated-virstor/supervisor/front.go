package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

const (
	frontRead   = 10 * time.Second // a request must have arrived
	frontIdle   = 2 * time.Minute  // a connection may do nothing
	frontGrace  = 5 * time.Second  // for answers on their way when the front ends
	frontHeader = 16 << 10
	frontBody   = 1 << 20
)

// front is where administrators' requests come in. The worker has no part in
// that: it cannot accept a connection, and what it says is never taken for a
// request. The front sees who asks, lets the providers that are named be opened
// while the request lasts, and has the worker answer it.
type front struct {
	log   *slog.Logger
	grant func(control.Access) (end func())
	note  func(history.Deed) // told of what changed something
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	door    *door         // of the present worker, or nil
	changed chan struct{} // closed when door is another
	server  *http.Server  // nil while it is closed
	done    chan struct{} // closed when server has ended
}

func newFront(log *slog.Logger, grant func(control.Access) func(), note func(history.Deed)) *front {
	f := &front{log: log, grant: grant, note: note, changed: make(chan struct{})}
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "worker"
		},
		// One connection for each request: none outlives its worker.
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) },
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		FlushInterval: -1, // events are told when they happen
		ErrorHandler:  f.failed,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return f
}

// use has requests answered through d, nil for later: they wait.
func (f *front) use(d *door) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.door = d
	close(f.changed)
	f.changed = make(chan struct{})
}

// errEnding: the front ends, and whoever waits for a worker need not.
var errEnding = errors.New("the supervisor is being replaced")

// dial waits until there is a worker, and connects to it.
func (f *front) dial(ctx context.Context) (net.Conn, error) {
	for {
		f.mu.Lock()
		d, changed, ending := f.door, f.changed, f.server == nil
		f.mu.Unlock()
		if d != nil {
			if c, err := d.open(); err == nil {
				return c, nil
			}
		}
		if ending {
			return nil, errEnding
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// open serves what comes through the listener of that file, which stays the
// caller's.
func (f *front) open(listener *os.File) error {
	l, err := net.FileListener(listener)
	if err != nil {
		return fmt.Errorf("listen on the control socket: %w", err)
	}
	server := &http.Server{
		Handler: control.Audited(f, f.note), ConnContext: control.ConnContext, ReadHeaderTimeout: frontRead, ReadTimeout: frontRead, IdleTimeout: frontIdle, MaxHeaderBytes: frontHeader,
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	f.mu.Lock()
	f.server, f.done = server, done
	f.mu.Unlock()
	go func() {
		defer close(done)
		if err := server.Serve(control.OwnersOnly(l, f.log)); !errors.Is(err, http.ErrServerClosed) {
			f.log.Error("the control socket is not answered any more: restart the service when it suits", "error", err)
		}
	}()
	return nil
}

// close lets what has been answered reach its askers. Who connects from now on
// waits for the next one to open.
func (f *front) close() {
	f.mu.Lock()
	server, done := f.server, f.done
	f.server = nil
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), frontGrace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // only what listens can fail, and is closed
	}
	<-done
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, frontBody))
	if err != nil {
		f.answer(w, http.StatusBadRequest, control.Errorf(control.Invalid, "request: %v", err))
		return
	}
	// The time to send a request is over; the answer may take longer.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		f.log.Debug("control: clear read deadline", "error", err)
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	defer f.grant(control.AccessOf(r.Method, r.URL.EscapedPath(), body))()
	f.proxy.ServeHTTP(w, r)
}

// failed answers what the worker did not, or what nobody waits for any more: that is read
// in the history alone. Clients make a request again where the code says that they may.
func (f *front) failed(w http.ResponseWriter, r *http.Request, err error) {
	f.log.Debug("control: the worker does not answer", "request", r.Method+" "+r.URL.Path, "error", err)
	if r.Context().Err() != nil {
		f.answer(w, http.StatusBadGateway, control.Errorf(control.Internal, "who asked was gone before the answer"))
		return
	}
	if errors.Is(err, errEnding) {
		f.answer(w, http.StatusBadGateway, control.Errorf(control.Internal, "%v, and the request is not begun: make it again", err).WithCode(control.NotBegun))
		return
	}
	f.answer(w, http.StatusBadGateway, control.Errorf(control.Internal,
		"the process that serves ended before it answered: `gvirstor status` tells what has become of the request").WithCode(control.Unanswered))
}

func (f *front) answer(w http.ResponseWriter, status int, e *control.Error) {
	b, err := json.Marshal(e)
	if err != nil {
		f.log.Error("control: encode an answer", "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		f.log.Debug("control: client went away", "error", err)
	}
}
