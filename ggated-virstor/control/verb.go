package control

import (
	"bytes"
	"context"
	"net/http"
	"strings"
)

// verb is a row of the table of the API: what is asked with a Q and answered with an
// A. The server, the client, the providers that a request has opened and the page of
// the API (doc.go) are made from it.
type verb[Q, A any] struct {
	name   string // of the verb, as Call has it
	method string // POST sends a Q; GET and DELETE send nothing
	path   string // below /v1/; {name} stands for the volume or the job
	do     func(ctx context.Context, v Verbs, name string, r Q) (A, error)
}

// None is the request or the answer of a verb that has none.
type None struct{}

// row is a verb[Q, A] of whatever Q and A.
type row interface {
	// verbName is that of the verb.
	verbName() string
	// pattern is that of http.ServeMux.
	pattern() string
	// handler answers requests.
	handler(s *Server) http.HandlerFunc
	// looks reports whether a request changes nothing.
	looks() bool
	// access is what a request with that body has the daemon open.
	access(body []byte) Access
}

func (v *verb[Q, A]) verbName() string { return v.name }

func (v *verb[Q, A]) pattern() string { return v.method + " " + version + v.path }

func (v *verb[Q, A]) handler(s *Server) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { answer(s, w, r, v.do) }
}

func (v *verb[Q, A]) looks() bool {
	_, ok := any(new(Q)).(onlooker)
	return ok || v.method == http.MethodGet
}

// opener is a request that has the daemon open providers, or let them go.
type opener interface{ access() Access }

func (v *verb[Q, A]) access(body []byte) Access {
	var q Q
	o, ok := any(&q).(opener)
	if !ok || v.method != http.MethodPost || decode(bytes.NewReader(body), &q) != nil {
		return Access{}
	}
	return o.access()
}

// ask has c bring the verb to whoever answers it.
func (v *verb[Q, A]) ask(ctx context.Context, c *Client, name string, r Q) (a A, err error) {
	err = c.do(ctx, Call{Verb: v.name, Name: name, Request: r, Answer: &a, method: v.method, path: v.path})
	return a, err
}

// tell is ask of a verb that answers None.
func (v *verb[Q, A]) tell(ctx context.Context, c *Client, name string, r Q) error {
	_, err := v.ask(ctx, c, name, r)
	return err
}

// version is how every path begins.
const version = "/v1/"

// AccessOf tells which providers a request names, and for what. A request that it
// does not know, or that is malformed, names none.
func AccessOf(method, escapedPath string, body []byte) Access {
	for _, r := range rows() {
		if matches(r.pattern(), method, escapedPath) {
			return r.access(body)
		}
	}
	return Access{}
}

// matches reports whether a request is one that the pattern of a row means. It does
// not unescape the path, so that whatever {name} stands for is one segment.
func matches(pattern, method, escapedPath string) bool {
	want := strings.Split(pattern, "/")
	got := strings.Split(method+" "+escapedPath, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && want[i] != "{name}" {
			return false
		}
	}
	return true
}

// Access is what a request has the daemon open, and what it is done with.
type Access struct {
	Open []string // while the request lasts
	Keep []string // until a request drops them
	Drop []string
}
