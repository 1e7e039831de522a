package control

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/history"
)

func TestEveryRequestThatChangesSomethingIsToldOfHoweverItEnds(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		do                 http.HandlerFunc
		verb, err          string
	}{
		{"POST", "/v1/volumes/vol/stop", "{}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, "stop", ""},
		{"DELETE", "/v1/jobs/vol", "", func(http.ResponseWriter, *http.Request) {}, "cancel", ""},
		{"POST", "/v1/volumes/vol/stop", "{}", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"text":"no"}`, http.StatusConflict) }, "stop", "no"},
		{"POST", "/v1/volumes/vol/stop", "{}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "stop", "Bad Gateway"},
		{"POST", "/v1/volumes/vol/stop", "{}", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "stop", "who asked was gone before the answer"},
		{"GET", "/v1/status", "", func(http.ResponseWriter, *http.Request) {}, "", ""},
		{"POST", "/v1/volumes/vol/diff", "{}", func(http.ResponseWriter, *http.Request) {}, "", ""}, // which only looks
		{"POST", "/v1/nosuch", "{}", func(http.ResponseWriter, *http.Request) {}, "", ""},
	} {
		var got []history.Deed
		h := Audited(c.do, func(d history.Deed) { got = append(got, d) })
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		}()
		if c.verb == "" {
			if got != nil {
				t.Errorf("%s %s: %+v", c.method, c.path, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Verb != c.verb || got[0].Error != c.err {
			t.Errorf("%s %s: %+v, want %s, %q", c.method, c.path, got, c.verb, c.err)
		}
	}
}

// TestAUserInAURIIsNotNoted: it may be a secret, and the history is kept.
func TestAUserInAURIIsNotNoted(t *testing.T) {
	var got history.Deed
	h := Audited(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }), func(d history.Deed) { got = d })
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/volumes/vol/add", strings.NewReader(`{"providers":["nbd://me:hush@host/x"]}`)))
	if got.Verb != "add" || strings.Contains(string(got.Request), "hush") {
		t.Errorf("%+v", got)
	}
}
