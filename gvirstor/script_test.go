package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/control/controltest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gvirstor": func() { os.Exit(programMain()) }})
}

// daemon is a script's fake daemon, nil until the script starts it.
type daemon struct{ fake *controltest.Fake }

// errEndless has a job go on until it is cancelled.
var errEndless = errors.New("endless")

// jobKinds are those that the fake daemon does, at once.
var jobKinds = []string{"evacuate", "replace", "pack", "rebalance", "reclaim", "resize"}

// daemonKey is where a script keeps its *daemon.
type daemonKey struct{}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			// No script may reach a daemon of the machine that it runs on.
			e.Setenv("GVIRSTOR_CONTROL", filepath.Join(e.WorkDir, "s"))
			// The race detector lets a program linger for a second.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Values[daemonKey{}] = new(daemon)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"truncate":   truncateCommand,
			"grow":       growCommand,
			"overlay":    overlayCommand,
			"endless":    endlessCommand,
			"daemon":     daemonCommand,
			"calls":      callsCommand,
			"fails":      failsCommand,
			"stopresult": stopResultCommand,
			"lock":       lockCommand,
			"poke":       pokeCommand,
			"alertsfail": alertsFailCommand,
			"connected":  connectedCommand,
		},
	})
}

// truncate SIZE FILE ...: makes sparse files.
func truncateCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: truncate SIZE FILE ...")
	}
	size, err := control.ExpandNumber(args[0])
	ts.Check(err)
	for _, name := range args[1:] {
		f, err := os.Create(ts.MkAbs(name))
		ts.Check(err)
		ts.Check(f.Truncate(size))
		ts.Check(f.Close())
	}
}

// grow SIZE FILE: makes a file longer by a hole.
func growCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: grow SIZE FILE")
	}
	size, err := control.ExpandNumber(args[0])
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[1]), size))
}

// overlay SMALL BIG: SMALL's contents take the place of the beginning of BIG's.
func overlayCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: overlay SMALL BIG")
	}
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte(ts.ReadFile(args[0])), 0)
	ts.Check(errors.Join(err, f.Close()))
}

// endless KIND: jobs of that kind end only when they are cancelled.
func endlessCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: endless KIND")
	}
	fakeOf(ts).Fail(args[0], errEndless)
}

// daemon STATUS.json: starts a fake daemon that tells that status.
func daemonCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon STATUS.json")
	}
	var st control.Status
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &st))
	fake := controltest.New(st)
	for _, kind := range jobKinds {
		fake.Handle(kind, func(ctx context.Context, _ string, _ json.RawMessage, _ func(done, total int64)) error {
			err := fake.Failure(kind)
			if errors.Is(err, errEndless) {
				<-ctx.Done()
				return ctx.Err()
			}
			return err
		})
	}
	l, err := control.Listen(ts.Getenv("GVIRSTOR_CONTROL"))
	ts.Check(err)
	s := control.NewServer(fake, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	ts.Value(daemonKey{}).(*daemon).fake = fake
	ts.Defer(func() {
		fake.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		ts.Check(s.Shutdown(ctx))
		ts.Check(<-served)
	})
}

// calls FILE: compares what the daemon was asked to do with FILE.
func callsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: calls FILE")
	}
	got := strings.Join(fakeOf(ts).Calls(), "\n") + "\n"
	got = strings.ReplaceAll(got, ts.Getenv("WORK"), "$WORK")
	if want := ts.ReadFile(args[0]); got != want {
		ts.Fatalf("the daemon was asked:\n%swant:\n%s", got, want)
	}
}

// fails VERB KIND[/CODE] TEXT: makes the daemon fail.
func failsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: fails VERB KIND[/CODE] TEXT")
	}
	kind, code, _ := strings.Cut(args[1], "/")
	fakeOf(ts).Fail(args[0], control.Errorf(control.Kind(kind), "%s", args[2]).WithCode(control.Code(code)))
}

// stopresult VOLUME HANDED_BACK [REASON ...]: is what stop answers.
func stopResultCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: stopresult VOLUME HANDED_BACK [REASON ...]")
	}
	back, err := strconv.ParseBool(args[1])
	ts.Check(err)
	fakeOf(ts).SetStopResult(args[0], control.StopResult{HandedBack: back, Reasons: args[2:]})
}

// poke FILE OFFSET HEX: overwrites bytes; a negative offset counts from the end.
func pokeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: poke FILE OFFSET HEX")
	}
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	b, err := hex.DecodeString(args[2])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	if off < 0 {
		st, err := f.Stat()
		ts.Check(err)
		off += st.Size()
	}
	_, err = f.WriteAt(b, off)
	ts.Check(err)
	ts.Check(f.Close())
}

// alertsfail: one channel of alerts fails from now on.
func alertsFailCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: alertsfail")
	}
	fakeOf(ts).FailAlerts()
}

// connected CLIENTS.json: has those clients connected to the daemon.
func connectedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: connected CLIENTS.json")
	}
	var all control.Clients
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &all))
	fakeOf(ts).SetClients(all.Clients)
}

// lock FILE: has FILE in use until the script ends.
func lockCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lock FILE")
	}
	p, err := geomlib.Open(ts.MkAbs(args[0]), geomlib.OpenOptions{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(p.Close()) })
}

func fakeOf(ts *testscript.TestScript) *controltest.Fake {
	fake := ts.Value(daemonKey{}).(*daemon).fake
	if fake == nil {
		ts.Fatalf("no daemon was started")
	}
	return fake
}
