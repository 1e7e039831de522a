package fdrpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair are two peers that run.
func pair(t *testing.T, ours, theirs Config) (a, b *Peer) {
	t.Helper()
	conn, f, err := SocketPair()
	must(t, err)
	other, err := ConnOf(f)
	must(t, err)
	a, b = New(conn, ours), New(other, theirs)
	var running sync.WaitGroup
	for _, p := range []*Peer{a, b} {
		running.Go(func() {
			if err := p.Run(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		a.Close()
		running.Wait()
	})
	return a, b
}

func TestErrorsThatCallersDecideByCrossTheConnection(t *testing.T) {
	errLocked := errors.New("locked")
	known := map[string]error{"locked": errLocked, "no-file": fs.ErrNotExist}
	_, b := pair(t, Config{Sentinels: known, Methods: Methods{"open": Handle(func(_ context.Context, name string) (Reply, error) {
		return Reply{}, fmt.Errorf("open %s: %w", name, errLocked)
	})}}, Config{Sentinels: known})
	_, err := b.Call(t.Context(), "open", "x", nil)
	if !errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist) || err.Error() != "open x: locked" {
		t.Errorf("%v", err)
	}
}

func TestAMethodThatIsNotKnownIsAnError(t *testing.T) {
	_, b := pair(t, Config{Self: "supervisor"}, Config{})
	if _, err := b.Call(t.Context(), "fly", nil, nil); err == nil || !strings.Contains(err.Error(), `the supervisor does not know "fly"`) {
		t.Errorf("%v", err)
	}
}

func TestABodyThatDoesNotFitIsAnError(t *testing.T) {
	asked := false
	_, b := pair(t, Config{Methods: Methods{"count": Handle(func(context.Context, int) (Reply, error) { asked = true; return Reply{}, nil })}}, Config{})
	if _, err := b.Call(t.Context(), "count", "seven", nil); err == nil || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
}

func TestManyQuestionsAtOnceGetTheirOwnAnswers(t *testing.T) {
	ours, theirs, err := SocketPair()
	must(t, err)
	conn, err := ConnOf(theirs)
	must(t, err)
	dir := t.TempDir()
	methods := Methods{}
	for i := range 50 {
		method := fmt.Sprint("m", i)
		methods[method] = Bare(func(context.Context) (Reply, error) {
			f, err := os.Create(filepath.Join(dir, method))
			if err != nil {
				return Reply{}, err
			}
			_, err = f.WriteString(method)
			return Reply{Body: method, Once: []*os.File{f}}, err
		})
	}
	s := New(ours, Config{Methods: methods})
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	c := New(conn, Config{})
	other := make(chan error, 1)
	go func() { other <- c.Run() }()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			method := fmt.Sprint("m", i)
			var got string
			fs, err := c.Call(context.Background(), method, strings.Repeat("x", i*1000), &got)
			if err != nil || got != method || len(fs) != 1 {
				t.Errorf("%s: %q, %d files, %v", method, got, len(fs), err)
				return
			}
			defer fs[0].Close()
			b := make([]byte, len(method))
			if _, err := fs[0].ReadAt(b, 0); err != nil || string(b) != method {
				t.Errorf("%s: the file says %q, %v", method, b, err)
			}
		})
	}
	wg.Wait()
	c.Close()
	must(t, <-other)
	must(t, <-done)
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08{\"id\":1}"))
	f.Add([]byte("\x00\x00\x00\x15{\"id\":1,\"method\":\"x\"}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs, err := SocketPair()
		must(t, err)
		conn, err := ConnOf(theirs)
		must(t, err)
		go func() {
			_, _ = conn.Write(in)
			conn.Close()
		}()
		p := New(ours, Config{Methods: Methods{"x": Bare(func(context.Context) (Reply, error) { return Reply{}, nil })}})
		_ = p.Run() // must end, whatever came
	})
}

func TestAPeerThatReadsNothingKeepsTheOtherFromNothing(t *testing.T) {
	ours, theirs, err := SocketPair()
	must(t, err)
	defer theirs.Close()
	s := New(ours, Config{})
	s.patience = 50 * time.Millisecond
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	_, err = s.Call(t.Context(), "stop", strings.Repeat("x", maxMessage/2), nil)
	if !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	must(t, <-done) // the connection is given up
}

func TestQuestionsBeyondWhatIsBearableAreRefused(t *testing.T) {
	ours, theirs, err := SocketPair()
	must(t, err)
	conn, err := ConnOf(theirs)
	must(t, err)
	release := make(chan struct{})
	s := New(ours, Config{Methods: Methods{"x": Bare(func(context.Context) (Reply, error) {
		<-release
		return Reply{}, nil
	})}})
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	c := New(conn, Config{})
	other := make(chan error, 1)
	go func() { other <- c.Run() }()
	results := make(chan error, maxQuestions+1)
	for range maxQuestions + 1 {
		go func() {
			_, err := c.Call(t.Context(), "x", nil, nil)
			results <- err
		}()
	}
	if err := <-results; err == nil || !strings.Contains(err.Error(), errManyQuestions.Error()) {
		t.Errorf("the first answer is %v", err)
	}
	close(release)
	for range maxQuestions {
		must(t, <-results)
	}
	c.Close()
	must(t, <-other)
	must(t, <-done)
}
