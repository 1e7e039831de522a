package space

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var sample1 = Alert{Time: start, Volume: "mydata", ID: 0xabc, Level: "percent-80", Severity: slog.LevelWarn, Text: "it's \"short\"; $HOME",
	Threshold: 80, Value: 81, PhysicalBytes: 100, AllocatedBytes: 81, FreeBytes: 19, UsedPercent: 81, SecondsToFull: -1}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestTheCommandGetsTheFactsByEnvironmentAndJSON(t *testing.T) {
	dir := t.TempDir()
	h := StartHook(Shell{fmt.Sprintf("env | grep ^GVIRSTOR_ | sort >%s/env && cat >%s/json", dir, dir)}, 0, discard())
	defer h.Stop(t.Context())
	if err := h.Do(t.Context(), sample1); err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"VOLUME=mydata", "ID=00000abc", "LEVEL=percent-80", "EVENT=raised", "SEVERITY=warn",
		`TEXT=it's "short"; $HOME`, "THRESHOLD=80", "VALUE=81", "PHYSICAL_BYTES=100", "FREE_BYTES=19", "USED_PERCENT=81", "SECONDS_TO_FULL=-1"} {
		if !strings.Contains(string(env), "GVIRSTOR_"+want+"\n") {
			t.Errorf("%s is not in the environment:\n%s", want, env)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "json"))
	if err != nil {
		t.Fatal(err)
	}
	var got Alert
	if err := json.Unmarshal(b, &got); err != nil || got != sample1 {
		t.Errorf("%v: got %+v, want %+v", err, got, sample1)
	}
}

func TestACommandThatTakesTooLongIsKilledWithWhatItStarted(t *testing.T) {
	h := StartHook(Shell{"sleep 600 & sleep 600"}, 50*time.Millisecond, discard())
	defer h.Stop(t.Context())
	begin := time.Now()
	err := h.Do(t.Context(), sample1)
	if err == nil || !strings.Contains(err.Error(), "took longer than 50ms") {
		t.Fatalf("error %v", err)
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("took %s", d)
	}
	if h.Failures() != 1 {
		t.Errorf("%d failures", h.Failures())
	}
}

func TestACommandThatFailsIsQuoted(t *testing.T) {
	h := StartHook(Shell{"echo no such pager >&2; exit 3"}, 0, discard())
	defer h.Stop(t.Context())
	err := h.Do(t.Context(), sample1)
	if err == nil || !strings.Contains(err.Error(), "no such pager") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
}

// gateRunner tells when it begins and ends when told.
type gateRunner struct {
	begun chan string
	end   chan struct{}
}

func (r *gateRunner) Run(ctx context.Context, env []string, _ []byte) ([]byte, error) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "GVIRSTOR_VALUE="); ok {
			r.begun <- v
		}
	}
	select {
	case <-r.end:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestCommandsOfAVolumeRunOneAtATimeInOrderAndPostNeverWaits(t *testing.T) {
	r := &gateRunner{begun: make(chan string), end: make(chan struct{})}
	h := StartHook(r, time.Minute, discard())
	for i := range hookBacklog + 10 { // returns though no command ends
		h.Post(Alert{Value: int64(i)})
		if i == 0 {
			if v := <-r.begun; v != "0" {
				t.Fatalf("began with %s", v)
			}
		}
	}
	if n := h.Failures(); n != 9 {
		t.Errorf("%d alerts were dropped, should be 9", n)
	}
	for i := 1; i <= 3; i++ {
		select {
		case v := <-r.begun:
			t.Fatalf("%s began beside another", v)
		default:
		}
		r.end <- struct{}{}
		if v := <-r.begun; v != fmt.Sprint(i) {
			t.Fatalf("%s began, should be %d", v, i)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	h.Stop(ended) // while one runs
	if err := h.Do(t.Context(), sample1); err == nil {
		t.Error("a stopped hook takes alerts")
	}
}

func TestAnotherCommandWaitsUntilTheOldOneHasEnded(t *testing.T) {
	old := &gateRunner{begun: make(chan string), end: make(chan struct{})}
	next := &gateRunner{begun: make(chan string), end: make(chan struct{})}
	h := StartHook(old, time.Minute, discard())
	h.Post(Alert{Value: 1})
	<-old.begun
	h.Post(Alert{Value: 2})
	h.Set(next, time.Minute)
	h.Post(Alert{Value: 3})
	select {
	case v := <-next.begun:
		t.Fatalf("%s began beside the old command", v)
	case old.end <- struct{}{}:
	}
	for _, want := range []string{"2", "3"} {
		if v := <-next.begun; v != want {
			t.Errorf("%s began, should be %s", v, want)
		}
		next.end <- struct{}{}
	}
	h.Set(nil, 0)
	h.Post(Alert{Value: 4})
	if h.Runs() {
		t.Error("a command that was taken away is there")
	}
	h.Stop(t.Context())
	if n := h.Failures(); n != 0 {
		t.Errorf("%d failures", n)
	}
}
