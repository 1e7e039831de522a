package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/control/controltest"
)

var _ control.Backend = (*controltest.Fake)(nil)

func volume(name string) control.VolumeStatus {
	return control.VolumeStatus{
		Name: name, ID: 7, VirtualSize: 1<<62 + 1, ChunkSize: 4 << 20,
		Published:  []control.Publication{{Kind: control.Gate, Name: "virstor/" + name}},
		Conditions: []control.Condition{control.Full},
		Components: []control.ComponentStatus{{Name: "ada4"}},
	}
}

// serve starts a server on a fresh socket and returns its path.
func serve(t *testing.T, b control.Backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(b, nil)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *control.Client {
	t.Helper()
	c, err := control.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestStatusArrivesAsTheBackendToldIt(t *testing.T) {
	want := control.Status{
		Version: "1", PID: 9, Started: time.Unix(1, 0).UTC(),
		Volumes:  []control.VolumeStatus{volume("a"), volume("b")},
		Problems: []control.Problem{{Volume: "c", Reason: "component 1 is missing"}},
	}
	c := dial(t, serve(t, controltest.New(want)))
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestVolumeIsFoundByEveryName(t *testing.T) {
	c := dial(t, serve(t, controltest.New(control.Status{Volumes: []control.VolumeStatus{volume("mydata")}})))
	for _, name := range []string{"mydata", "virstor/mydata", "/dev/virstor/mydata"} {
		v, err := c.Volume(t.Context(), name)
		if err != nil || v.Name != "mydata" {
			t.Errorf("%s: %q, %v", name, v.Name, err)
		}
	}
	for _, name := range []string{"other", "..", ".", "", "a?b", "mydata/add", "%", "ü"} {
		if _, err := c.Volume(t.Context(), name); err == nil {
			t.Errorf("%q was found", name)
		}
	}
}

func TestVerbsReachTheBackend(t *testing.T) {
	b := controltest.New(control.Status{Volumes: []control.VolumeStatus{volume("a")}})
	c := dial(t, serve(t, b))
	ctx := t.Context()
	if err := c.Add(ctx, "virstor/a", control.AddRequest{Providers: []string{"/dev/ada5"}, Hardcode: true}); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, "a", control.RemoveRequest{Providers: []string{"/dev/ada5"}}); err != nil {
		t.Error(err)
	}
	if _, err := c.Serve(ctx, control.ServeRequest{Providers: []string{"x"}, SectorSize: 4096}); err != nil {
		t.Error(err)
	}
	r, err := c.Stop(ctx, "a", control.StopRequest{Force: true})
	if err != nil || !r.HandedBack {
		t.Error(r, err)
	}
	want := []string{
		"add virstor/a {Providers:[/dev/ada5] Hardcode:true Force:false SectorSize:0}",
		"remove a {Providers:[/dev/ada5]}",
		"serve {Providers:[x] SectorSize:4096}",
		"stop a {Force:true}",
	}
	if got := b.Calls(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestErrorsKeepKindAndText(t *testing.T) {
	b := controltest.New(control.Status{Volumes: []control.VolumeStatus{volume("a")}})
	c := dial(t, serve(t, b))
	for _, kind := range []control.Kind{control.NotFound, control.Busy, control.Invalid, control.NoSpace, control.Internal} {
		b.Fail("stop", fmt.Errorf("stop a: %w", control.Errorf(kind, "because of %s", kind)))
		_, err := c.Stop(t.Context(), "a", control.StopRequest{})
		if got := control.KindOf(err); got != kind {
			t.Errorf("%s arrives as %s", kind, got)
		}
		if want := "stop a: because of " + string(kind); err.Error() != want {
			t.Errorf("text %q, want %q", err, want)
		}
	}
	b.Fail("stop", errors.New("plain"))
	if _, err := c.Stop(t.Context(), "a", control.StopRequest{}); control.KindOf(err) != control.Internal || err.Error() != "plain" {
		t.Errorf("plain error arrives as %v", err)
	}
}

func TestBadRequestsAreInvalid(t *testing.T) {
	path := serve(t, controltest.New(control.Status{Volumes: []control.VolumeStatus{volume("a")}}))
	h := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	defer h.CloseIdleConnections()
	for _, test := range []struct{ what, path, body, want string }{
		{"no body", "volumes/a/add", "", "without a body"},
		{"no JSON", "volumes/a/add", "providers", "invalid character"},
		{"wrong type", "volumes/a/add", `{"providers":"x"}`, "cannot unmarshal"},
		{"unknown member", "volumes/a/stop", `{"forse":true}`, "unknown field"},
		{"two objects", "volumes/a/stop", `{}{}`, "more than one"},
		{"no providers", "volumes/a/add", `{"providers":[]}`, "names no providers"},
		{"empty provider", "volumes/a/remove", `{"providers":[""]}`, "bad provider name"},
		{"NUL", "serve", `{"providers":["a\u0000b"]}`, "bad provider name"},
		{"sector size", "serve", `{"providers":["a"],"sector_size":513}`, "bad sector size"},
		{"no kind", "volumes/a/jobs", `{}`, "without a kind"},
		{"unknown kind", "volumes/a/jobs", `{"kind":"juggle"}`, "unknown job"},
		{"too long", "volumes/a/add", `{"providers":["` + strings.Repeat("x", 2<<20) + `"]}`, "longer than"},
		{"a user", "volumes/a/add", `{"providers":["nbd://me:hush@host/x"]}`, "nbd://host/x: a URI with a user's name"},
		{"a user of a job", "volumes/a/jobs", `{"kind":"replace","args":{"target":"nbds://me:hush\u0040host/x"}}`, "nbds://host"},
		{"a user of nothing", "volumes/a/stop", `{"nbd://me:hush@host":1}`, "nbd://host"},
		{"deep", "volumes/a/jobs", `{"kind":"x","args":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "depth"},
	} {
		resp, err := h.Post("http://x/v1/"+test.path, "application/json", strings.NewReader(test.body))
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var e control.Error
		if err := json.Unmarshal(b, &e); err != nil {
			t.Errorf("%s: %v in %q", test.what, err, b)
		}
		if resp.StatusCode != http.StatusBadRequest || e.Kind != control.Invalid || !strings.Contains(e.Text, test.want) || strings.Contains(e.Text, "hush") {
			t.Errorf("%s: %s %+v", test.what, resp.Status, e)
		}
	}
	resp, err := h.Get("http://x/v2/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNotFound || !strings.Contains(string(b), "of one version") {
		t.Errorf("unknown request: %s %s", resp.Status, b)
	}
}

func TestEventsStream(t *testing.T) {
	b := controltest.New(control.Status{})
	c := dial(t, serve(t, b))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// The stream stands once Events has returned, so nothing is missed.
	want := []control.Event{
		{Time: time.Unix(1, 0).UTC(), Volume: "a", Kind: "full", Text: "All physical space allocated for a"},
		{Time: time.Unix(2, 0).UTC(), Volume: "a", Kind: "components", Text: "ada5 added"},
	}
	for _, e := range want {
		b.Publish(e)
	}
	for _, w := range want {
		if got, err := s.Next(); err != nil || got != w {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	cancel()
	if e, err := s.Next(); err == nil {
		t.Errorf("event %+v after the end", e)
	}
}

func TestShutdownEndsEventStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	srv := control.NewServer(controltest.New(control.Status{}), nil)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s, err := dial(t, path).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("stream ends with %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := control.Dial(path); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("dial after the end: %v", err)
	}
}

func TestHubNeverWaitsForASlowSubscriber(t *testing.T) {
	var h control.Hub
	ctx, cancel := context.WithCancel(t.Context())
	events, err := h.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		h.Publish(control.Event{Kind: "x"})
	}
	cancel()
	n := 0
	for range events { // ends: cancelling closes it
		n++
	}
	if n == 0 || n >= 1000 {
		t.Errorf("%d of 1000 events", n)
	}
	h.Publish(control.Event{Kind: "after the end"})
}

func TestHubBoundsSubscribers(t *testing.T) {
	var h control.Hub
	for i := range 65 {
		_, err := h.Subscribe(t.Context())
		if want := i == 64; (control.KindOf(err) == control.Busy) != want {
			t.Fatalf("subscriber %d: %v", i, err)
		}
	}
}

func TestJobsStartPollCancel(t *testing.T) {
	b := controltest.New(control.Status{Volumes: []control.VolumeStatus{volume("a"), volume("b")}})
	half := make(chan struct{})
	b.Handle("pack", func(ctx context.Context, volume string, args json.RawMessage, progress func(done, total int64)) error {
		progress(5, 10)
		close(half)
		<-ctx.Done()
		return fmt.Errorf("pack %s: %w", volume, ctx.Err())
	})
	b.Handle("fail", func(context.Context, string, json.RawMessage, func(done, total int64)) error {
		return errors.New("did not work")
	})
	c := dial(t, serve(t, b))
	ctx := t.Context()
	j, err := c.StartJob(ctx, "virstor/a", control.JobRequest{Kind: "pack", Args: json.RawMessage(`{"rate":1}`)})
	if err != nil || j.State != control.JobRunning || j.Volume != "a" {
		t.Fatalf("%+v, %v", j, err)
	}
	<-half
	if got, err := c.Job(ctx, j.ID); err != nil || got.Done != 5 || got.Total != 10 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := b.VolumeJob("a"); got == nil || got.ID != j.ID {
		t.Errorf("the volume's job is %+v", got)
	}
	if _, err := c.StartJob(ctx, "a", control.JobRequest{Kind: "pack"}); control.KindOf(err) != control.Busy {
		t.Errorf("second job: %v", err)
	}
	if _, err := c.StartJob(ctx, "nosuch", control.JobRequest{Kind: "pack"}); control.KindOf(err) != control.NotFound {
		t.Errorf("job on no volume: %v", err)
	}
	f, err := c.StartJob(ctx, "b", control.JobRequest{Kind: "fail"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CancelJob(ctx, j.ID); err != nil {
		t.Error(err)
	}
	b.Close() // waits for both
	if got, err := c.Job(ctx, j.ID); err != nil || got.State != control.JobCancelled || got.Error != "" {
		t.Errorf("canceled job: %+v, %v", got, err)
	}
	if got, err := c.Job(ctx, f.ID); err != nil || got.State != control.JobFailed || got.Error != "did not work" {
		t.Errorf("failed job: %+v, %v", got, err)
	}
	if b.VolumeJob("a") != nil {
		t.Error("an ended job is shown as running")
	}
	if n := len(b.List()); n != 2 {
		t.Errorf("%d jobs", n)
	}
	if _, err := c.Job(ctx, "99"); control.KindOf(err) != control.NotFound {
		t.Errorf("unknown job: %v", err)
	}
	if _, err := c.StartJob(ctx, "a", control.JobRequest{Kind: "pack"}); control.KindOf(err) != control.Busy {
		t.Errorf("job after Close: %v", err)
	}
}

func TestListenIsForTheOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	if _, err := control.Listen(path); !errors.Is(err, control.ErrRunning) {
		t.Errorf("second listener: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after close: %v", err)
	}
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := control.Listen(path)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(path); err == nil {
		t.Error("a regular file was taken for a socket")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file: %q, %v", b, err)
	}
}

func TestDialTellsThatNobodyIsThere(t *testing.T) {
	if _, err := control.Dial(filepath.Join(t.TempDir(), "none")); !errors.Is(err, control.ErrNotRunning) {
		t.Error(err)
	}
}

func TestClientSurvivesNonsense(t *testing.T) {
	for _, answer := range []string{
		"", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
		"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						io.WriteString(c, answer)
					}
				}()
			}
		}()
		if _, err := dial(t, path).Status(t.Context()); err == nil {
			t.Errorf("answer %q is a status", answer)
		}
		l.Close()
	}
}

// TestWhatOnlyAsksIsAskedAgainWhereADaemonEnds: its connection ends without an answer, or
// within it. What changes something is not, for it may have been done.
func TestWhatOnlyAsksIsAskedAgainWhereADaemonEnds(t *testing.T) {
	for _, cut := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int32
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) > 1 {
				io.WriteString(w, "{}")
				return
			}
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, cut)
			c.Close()
		})}
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		client := dial(t, path)
		if _, err := client.Status(t.Context()); err != nil || asked.Load() != 2 {
			t.Errorf("%q: asked %d times, %v", cut, asked.Load(), err)
		}
		asked.Store(0)
		if err := client.Add(t.Context(), "vol", control.AddRequest{}); err == nil || asked.Load() != 1 {
			t.Errorf("%q: add was asked for %d times, %v", cut, asked.Load(), err)
		}
		server.Close()
		<-done
	}
}

func TestPercentIsRoundedDownAndNeverOverflows(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		want        int
	}{{0, 0, 0}, {-1, 5, 0}, {1, 0, 0}, {1, 3, 33}, {380, 382, 99}, {62, 1024, 6}, {5, 5, 100}, {1 << 62, 1 << 62, 100}, {1<<63 - 2, 1<<63 - 1, 100}, {1 << 61, 1 << 62, 50}} {
		if got := control.Percent(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d is %d%%, want %d%%", c.part, c.whole, got, c.want)
		}
	}
}
