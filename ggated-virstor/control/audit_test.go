package control

import (
	"context"
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
		{"POST", "/v1/volumes/vol/rollback", `{"snapshot":"a","dry_run":true}`, func(http.ResponseWriter, *http.Request) {}, "", ""},
		{"POST", "/v1/volumes/vol/rollback", `{"snapshot":"a","dry_run":false}`, func(http.ResponseWriter, *http.Request) {}, "rollback", ""},
		{"POST", "/v1/volumes/vol/jobs", `{"kind":"pack","args":{"dry_run":true}}`, func(http.ResponseWriter, *http.Request) {}, "", ""},
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

// pools has the volume vol, and vol/web of its pool.
type pools struct{ Backend }

func (pools) Volume(_ context.Context, name string) (VolumeStatus, error) {
	for _, v := range []string{"vol", "vol/web"} {
		if name == v || name == "virstor/"+v {
			return VolumeStatus{Name: v}, nil
		}
	}
	return VolumeStatus{}, Errorf(NotFound, "no volume %s", name)
}

// TestADeedNamesTheVolumeThatIsMadeOrGone, as it does one that is there.
func TestADeedNamesTheVolumeThatIsMadeOrGone(t *testing.T) {
	for name, want := range map[string]string{
		"vol": "vol", "virstor%2Fvol": "vol", "vol%2Fweb": "vol/web", "vol%2Fnew": "vol/new", "virstor%2Fvol%2Fnew": "vol/new",
		"other": "", "other%2Fnew": "", "vol%2Fn%0Aw": "",
	} {
		r := httptest.NewRequest("POST", "/v1/volumes/"+name+"/create", strings.NewReader("{}"))
		w := httptest.NewRecorder()
		mux := http.NewServeMux()
		mux.HandleFunc("POST /v1/volumes/{name}/create", (&Server{backend: pools{}}).nameVolume)
		mux.ServeHTTP(w, r)
		if got := w.Header().Get(volumeHeader); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
