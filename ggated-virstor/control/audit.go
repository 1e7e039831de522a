package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/peercred"
)

// volumeHeader is the header of an answer that says which volume the request was about, by
// its own name.
const volumeHeader = "Gvirstor-Volume"

// peerKey is where ConnContext keeps who is at the other end.
type peerKey struct{}

// ConnContext is http.Server's, for a server whose handler is audited.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if p, err := peercred.Of(c); err == nil {
		return context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// Audited is h, which answers the API, with note told of every request that changes
// something, when it has been answered.
func Audited(h http.Handler, note func(history.Deed)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verb := changing(r)
		if verb == "" {
			h.ServeHTTP(w, r)
			return
		}
		d := history.Deed{Time: time.Now().UTC(), Verb: verb}
		if p, ok := r.Context().Value(peerKey{}).(peercred.Peer); ok {
			d.UID, d.PID = &p.UID, p.PID
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		r.Body = io.NopCloser(&again{bytes.NewReader(body), err})
		if onlyTells(body) {
			h.ServeHTTP(w, r)
			return
		}
		if err == nil && json.Valid(body) && checkUsers(body) == nil {
			d.Request = body
		}
		a := &audit{ResponseWriter: w}
		d.Error = "who asked was gone before the answer"
		defer func() { // a proxy panics then
			d.Volume = a.Header().Get(volumeHeader)
			note(d)
		}()
		h.ServeHTTP(a, r)
		d.Error = a.failure()
	})
}

// again is a body that was read once, and fails as it did then.
type again struct {
	body *bytes.Reader
	err  error // nil: it was read to its end
}

func (a *again) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	if err == io.EOF && a.err != nil {
		err = a.err
	}
	return n, err
}

// changing is the verb of a request that changes something, empty of any other.
func changing(r *http.Request) string {
	for _, row := range rows() {
		if !row.looks() && matches(row.pattern(), r.Method, r.URL.EscapedPath()) {
			return row.verbName()
		}
	}
	return ""
}

// onlyTells reports whether a request with that body changes nothing: a dry run, of a verb
// that has such a thing (any other refuses it), or of a job.
func onlyTells(body []byte) bool {
	var q struct {
		DryRun bool `json:"dry_run"`
		Args   struct {
			DryRun bool `json:"dry_run"`
		} `json:"args"`
	}
	return json.Unmarshal(body, &q) == nil && (q.DryRun || q.Args.DryRun)
}

// audit is a ResponseWriter that keeps what went wrong.
type audit struct {
	http.ResponseWriter
	status int
	text   bytes.Buffer // of a failure
}

// Unwrap is for http.ResponseController.
func (a *audit) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a *audit) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *audit) Write(p []byte) (int, error) {
	if a.status >= http.StatusBadRequest && a.text.Len() < maxBody {
		a.text.Write(p)
	}
	return a.ResponseWriter.Write(p)
}

// failure is why the request failed, empty if it did not.
func (a *audit) failure() string {
	if a.status < http.StatusBadRequest {
		return ""
	}
	var e Error
	if err := json.Unmarshal(a.text.Bytes(), &e); err != nil || e.Text == "" {
		return http.StatusText(a.status)
	}
	return e.Text
}

// nameVolume says in the header of an answer which volume a changing request was about: a
// further one is NAME/VOLUME, whether it is there or not.
func (s *Server) nameVolume(w http.ResponseWriter, r *http.Request) {
	name, further := r.PathValue("name"), ""
	if name == "" || changing(r) == "" {
		return
	}
	v, err := s.backend.Volume(r.Context(), name)
	if at := strings.LastIndexByte(name, '/'); err != nil && at >= 0 {
		further = name[at:]
		v, err = s.backend.Volume(r.Context(), name[:at])
	}
	name = v.Name + further
	if err == nil && !strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' }) {
		w.Header().Set(volumeHeader, name)
	}
}

// Audit has the server tell note of requests that change something. It is called before
// Serve.
func (s *Server) Audit(note func(history.Deed)) {
	s.http.Handler = Audited(s.http.Handler, note)
	s.http.ConnContext = ConnContext
}
