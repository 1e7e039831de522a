package supervisor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/control/controltest"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// handDoor is both ends of a door.
func handDoor(t *testing.T) (*door, net.Listener) {
	t.Helper()
	ours, theirs, err := fdrpc.SocketPair()
	must(t, err)
	conn, err := fdrpc.ConnOf(theirs)
	must(t, err)
	t.Cleanup(func() {
		ours.Close()
		conn.Close()
	})
	return &door{conn: ours}, &doorListener{conn}
}

// frontSite is a front with a control socket.
type frontSite struct {
	f      *front
	path   string
	file   *os.File
	client *control.Client
	grants chan control.Access
	mu     sync.Mutex
	deeds  []history.Deed
	noted  chan struct{} // once for each
}

// take notes what was done.
func (s *frontSite) take(d history.Deed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deeds = append(s.deeds, d)
	s.noted <- struct{}{}
}

func newFrontSite(t *testing.T) *frontSite {
	t.Helper()
	s := &frontSite{path: filepath.Join(t.TempDir(), "s"), grants: make(chan control.Access, 100), noted: make(chan struct{}, 100)}
	l, err := control.Listen(s.path)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	s.file, err = l.File()
	must(t, err)
	t.Cleanup(func() { s.file.Close() })
	s.f = newFront(slog.New(slog.DiscardHandler), func(a control.Access) func() {
		s.grants <- a
		return func() { s.grants <- control.Access{} }
	}, s.take)
	must(t, s.f.open(s.file))
	t.Cleanup(s.f.close)
	s.client, err = control.Dial(s.path)
	must(t, err)
	t.Cleanup(s.client.Close)
	return s
}

// serveDoor answers with h until the test ends.
func serveDoor(t *testing.T, l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func TestARequestReachesTheWorkerWithWhatItNamesAllowed(t *testing.T) {
	s := newFrontSite(t)
	d, l := handDoor(t)
	s.f.use(d)
	allowed := make(chan control.Access, 1)
	serveDoor(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.EscapedPath() != "/v1/volumes/virstor%2Fvol/add" || !strings.Contains(string(b), "da1") {
			t.Errorf("%s %s, %v", r.URL, b, err)
		}
		allowed <- <-s.grants
		io.WriteString(w, "{}")
	}))
	must(t, s.client.Add(t.Context(), "virstor/vol", control.AddRequest{Providers: []string{"da1"}}))
	if a := <-allowed; len(a.Open) != 1 || a.Open[0] != "da1" {
		t.Errorf("%+v", a)
	}
	<-s.grants // and was given back
}

func TestARequestWaitsForAWorker(t *testing.T) {
	s := newFrontSite(t)
	done := make(chan error, 1)
	go func() {
		_, err := s.client.Status(t.Context())
		done <- err
	}()
	<-s.grants // it has come in
	d, l := handDoor(t)
	serveDoor(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	s.f.use(d)
	must(t, <-done)
}

// TestARequestThatWaitsForAWorkerHoldsUpNoUpgrade: it is told, instead of being cut off when
// the time for answers is over, and is made again.
func TestARequestThatWaitsForAWorkerHoldsUpNoUpgrade(t *testing.T) {
	s := newFrontSite(t)
	done := make(chan error, 1)
	go func() {
		_, err := s.client.Stop(t.Context(), "vol", control.StopRequest{})
		done <- err
	}()
	<-s.grants // it has come in
	s.f.close()
	d, l := handDoor(t)
	s.f.use(d)
	serveDoor(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	must(t, s.f.open(s.file))
	must(t, <-done)
}

func TestAWorkerThatDiesHasItsAskersTold(t *testing.T) {
	s := newFrontSite(t)
	d, l := handDoor(t)
	s.f.use(d)
	serveDoor(t, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	_, err := s.client.Stop(t.Context(), "vol", control.StopRequest{})
	if control.KindOf(err) != control.Internal || control.CodeOf(err) != control.Unanswered || !strings.Contains(err.Error(), "gvirstor status") {
		t.Error(err)
	}
}

// TestWhatOnlyAsksIsAskedAgainWhereAWorkerDies, but not for ever: it may be why they die.
func TestWhatOnlyAsksIsAskedAgainWhereAWorkerDies(t *testing.T) {
	for _, c := range []struct {
		deaths, asked int32
		code          control.Code
	}{{2, 3, ""}, {3, 3, control.Unanswered}} {
		s := newFrontSite(t)
		d, l := handDoor(t)
		s.f.use(d)
		var asked atomic.Int32
		serveDoor(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) <= c.deaths {
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, "{}")
		}))
		if _, err := s.client.Status(t.Context()); control.CodeOf(err) != c.code || (err != nil) != (c.code != "") || asked.Load() != c.asked {
			t.Errorf("%d die: asked %d times, %v", c.deaths, asked.Load(), err)
		}
	}
}

func TestWhoIsGoneBeforeTheAnswerIsNotSaidToHaveLostAWorker(t *testing.T) {
	s := newFrontSite(t)
	d, l := handDoor(t)
	s.f.use(d)
	ctx, leave := context.WithCancel(t.Context())
	serveDoor(t, l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leave()
		<-r.Context().Done()
	}))
	if _, err := s.client.Stop(ctx, "vol", control.StopRequest{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-s.noted
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.deeds[0]; got.Verb != "stop" || got.Error != "who asked was gone before the answer" {
		t.Errorf("%+v", got)
	}
}

func TestAskersWhoComeBetweenTwoFrontsWait(t *testing.T) {
	s := newFrontSite(t)
	d, l := handDoor(t)
	s.f.use(d)
	serveDoor(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	s.f.close()
	done := make(chan error, 1)
	go func() {
		_, err := s.client.Status(t.Context())
		done <- err
	}()
	must(t, s.f.open(s.file))
	must(t, <-done)
}

func TestEventsPassThroughAsTheyHappen(t *testing.T) {
	s := newFrontSite(t)
	d, l := handDoor(t)
	s.f.use(d)
	next := make(chan string)
	serveDoor(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case line := <-next:
				io.WriteString(w, line+"\n")
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { next <- "" }()
	es, err := s.client.Events(ctx)
	must(t, err)
	defer es.Close()
	for _, kind := range []string{"one", "two"} {
		next <- `{"kind":"` + kind + `"}`
		e, err := es.Next()
		must(t, err)
		if e.Kind != kind {
			t.Fatal(e)
		}
	}
}

func TestARequestThatIsTooLongGetsNowhere(t *testing.T) {
	s := newFrontSite(t)
	err := s.client.Add(t.Context(), strings.Repeat("v", 10), control.AddRequest{Providers: []string{strings.Repeat("x", frontBody)}})
	if control.KindOf(err) != control.Invalid {
		t.Error(err)
	}
}

func TestWhatChangesSomethingIsNotedWithWhoAskedAndHowItEnded(t *testing.T) {
	s := newFrontSite(t)
	d, l := handDoor(t)
	fake := controltest.New(control.Status{Volumes: []control.VolumeStatus{{Name: "vol"}}})
	server := control.NewServer(fake, nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		must(t, server.Shutdown(context.Background()))
		must(t, <-served)
	})
	s.f.use(d)
	must(t, s.client.Add(t.Context(), "virstor/vol", control.AddRequest{Providers: []string{"x"}}))
	if err := s.client.Remove(t.Context(), "vol", control.RemoveRequest{Providers: []string{"y"}}); err == nil {
		t.Error("removed")
	}
	if _, err := s.client.Status(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 { // each when its answer has been given
		<-s.noted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.deeds) != 2 {
		t.Fatalf("%+v", s.deeds)
	}
	add, remove := s.deeds[0], s.deeds[1]
	if add.Verb != "add" || add.Volume != "vol" || add.UID == nil || int(*add.UID) != os.Geteuid() || add.PID != os.Getpid() || add.Error != "" ||
		!strings.Contains(string(add.Request), `"providers":["x"]`) {
		t.Errorf("%+v", add)
	}
	if remove.Verb != "remove" || !strings.Contains(remove.Error, "y is no component of vol") {
		t.Errorf("%+v", remove)
	}
}
