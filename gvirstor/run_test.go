package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/control/controltest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// fakeKernel remembers whether the module is loaded.
type fakeKernel struct {
	loaded               bool
	loadErr, unloadError error
	geoms                *geomlib.Tree
}

func (k *fakeKernel) load() error {
	if k.loadErr == nil {
		k.loaded = true
	}
	return k.loadErr
}

func (k *fakeKernel) find() (int, error) {
	if !k.loaded {
		return 0, syscall.ENOENT
	}
	return 3, nil
}

func (k *fakeKernel) tree(context.Context) (*geomlib.Tree, error) {
	if k.geoms == nil {
		return nil, geomlib.ErrNotSupported
	}
	return k.geoms, nil
}

func (k *fakeKernel) unload(int) error {
	if k.unloadError == nil {
		k.loaded = false
	}
	return k.unloadError
}

// testEnv is a world without a daemon and a terminal.
func testEnv(args ...string) (e *env, stdout, stderr *bytes.Buffer) {
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	return &env{
		args: args, stdout: stdout, stderr: stderr, kernel: new(fakeKernel),
		getenv:   func(string) string { return "" },
		dial:     func(string) (*control.Client, error) { return nil, control.ErrNotRunning },
		typed:    func() bool { return false },
		terminal: func() (int, int, bool) { return 0, 0, false }, errTerminal: func() (int, int, bool) { return 0, 0, false },
	}, stdout, stderr
}

func TestLoadAndUnloadTellLikeGeom(t *testing.T) {
	k := new(fakeKernel)
	for _, c := range []struct {
		verb           string
		loadErr, unErr error
		status         int
		stdout, stderr string
	}{
		{"unload", nil, nil, 1, "", "gvirstor: Could not find module: No such file or directory.\n"},
		{"load", syscall.EPERM, nil, 1, "", "gvirstor: cannot load geom_gate: Operation not permitted\n"},
		{"load", nil, nil, 0, "Module available.\nDone.\n", ""},
		{"unload", nil, syscall.EBUSY, 1, "", "gvirstor: Could not unload module: Device busy.\n"},
		{"unload", nil, nil, 0, "Done.\n", ""},
		{"unload", nil, nil, 1, "", "gvirstor: Could not find module: No such file or directory.\n"},
	} {
		e, stdout, stderr := testEnv(c.verb, "-v")
		k.loadErr, k.unloadError = c.loadErr, c.unErr
		e.kernel = k
		status := run(t.Context(), e)
		if status != c.status || stdout.String() != c.stdout || stderr.String() != c.stderr {
			t.Errorf("%s: %d, %q, %q; want %d, %q, %q", c.verb, status, stdout, stderr, c.status, c.stdout, c.stderr)
		}
	}
}

func TestSocketComesFromEnvironmentAndOptions(t *testing.T) {
	for _, c := range []struct {
		env  string
		args []string
		want string
	}{
		{"", []string{"status"}, "/var/run/ggated-virstor.sock"},
		{"/env", []string{"status"}, "/env"},
		{"/env", []string{"--control", "/front", "status"}, "/front"},
		{"/env", []string{"--control=/front", "status", "--control", "/verb"}, "/verb"},
		{"", []string{"list", "--control=/verb"}, "/verb"},
	} {
		e, _, _ := testEnv(c.args...)
		e.getenv = func(string) string { return c.env }
		var got string
		e.dial = func(path string) (*control.Client, error) {
			got = path
			return nil, control.ErrNotRunning
		}
		if status := run(t.Context(), e); status != 1 || got != c.want {
			t.Errorf("%q with %q: %d, asks %q", c.args, c.env, status, got)
		}
	}
}

func TestLabelGoesOnWhenTheDaemonIsForOthers(t *testing.T) {
	e, _, stderr := testEnv("label", "mydata", "/nonexistent/disk")
	e.dial = func(string) (*control.Client, error) { return nil, syscall.EACCES }
	if run(t.Context(), e) != 1 || !strings.HasPrefix(stderr.String(), "gvirstor: warning: permission denied") ||
		!strings.HasSuffix(stderr.String(), "No such file or directory for /nonexistent/disk\ngvirstor: Device not specified\n") {
		t.Errorf("%s", stderr)
	}
}

func TestNoSlipLeadsToAVerbThatDestroys(t *testing.T) {
	var mild []string
	for _, cmd := range commands() {
		if !cmd.destroys {
			mild = append(mild, cmd.name)
		}
	}
	for _, verb := range []string{"clear", "delete", "destroy", "restore"} {
		if slices.Contains(mild, verb) {
			t.Errorf("%s does not count as one that destroys", verb)
		}
		for cut := 1; cut < len(verb); cut++ {
			for _, slip := range []string{verb[:cut], verb[cut:], verb[:cut] + "x" + verb[cut:]} {
				if near := nearest(slip); near != "" && !slices.Contains(mild, near) {
					t.Errorf("%s leads to %s", slip, near)
				}
			}
		}
	}
}

func TestWhatOtherToolsCallAVerbIsSaidOnce(t *testing.T) {
	of := make(map[string]string)
	for _, cmd := range commands() {
		of[cmd.name] = cmd.name
	}
	for _, cmd := range commands() {
		for _, word := range strings.Fields(cmd.also) {
			if of[word] != "" {
				t.Errorf("%s means %s and %s", word, of[word], cmd.name)
			}
			of[word] = cmd.name
			if near := nearest(word); near != cmd.name {
				t.Errorf("%s leads to %s, not to %s", word, near, cmd.name)
			}
		}
		if cmd.brief == "" || len(cmd.brief) > 60 {
			t.Errorf("%s is told in %d characters", cmd.name, len(cmd.brief))
		}
	}
}

func TestEveryVerbHasHelpWithAnExample(t *testing.T) {
	for _, cmd := range commands() {
		var b bytes.Buffer
		printHelp(&b, cmd)
		text := b.String()
		if !strings.HasPrefix(text, "usage: gvirstor "+cmd.name) || !strings.Contains(text, "\nExample:\n    gvirstor "+cmd.name) || cmd.about == "" {
			t.Errorf("help of %s:\n%s", cmd.name, text)
		}
		for line := range strings.Lines(text) {
			if len(line) > 81 && !strings.HasPrefix(line, "usage:") {
				t.Errorf("help of %s: line of %d characters: %s", cmd.name, len(line), line)
			}
		}
	}
}

func TestOperandsAreNoOptionsForAnyVerb(t *testing.T) {
	for _, cmd := range commands() {
		e, _, stderr := testEnv(cmd.name, "-Z")
		if run(t.Context(), e) != 1 || !strings.HasPrefix(stderr.String(), "gvirstor: illegal option -- Z\nusage: gvirstor "+cmd.name) ||
			strings.Count(stderr.String(), "\n") != 2 {
			t.Errorf("%s -Z: %s", cmd.name, stderr)
		}
	}
}

func TestVersionIsTold(t *testing.T) {
	e, stdout, _ := testEnv("--version")
	if run(t.Context(), e) != 0 || stdout.String() != "gvirstor "+version+"\n" {
		t.Errorf("%s", stdout)
	}
}

func TestNearestVerb(t *testing.T) {
	for name, want := range map[string]string{
		"lable": "label", "stats": "status", "stat": "status", "sto": "stop", "lst": "list", "destory": "", "hlep": "help",
		"unlod": "unload", "frob": "", "-v": "", "": "", "x": "", strings.Repeat("a", 5000): "",
	} {
		if got := nearest(name); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
}

func TestHumanizeIsThatOfGeom(t *testing.T) {
	// Values of humanize_number(3) with a buffer of five bytes, HN_AUTOSCALE,
	// and HN_B, HN_NOSPACE and HN_DECIMAL.
	for n, want := range map[int64]string{
		0: "0B", 1: "1B", 512: "512B", 999: "999B", 1000: "1.0K", 1023: "1.0K", 1024: "1.0K", 1536: "1.5K", 10137: "9.9K", 10188: "9.9K",
		10189: "10K", 10240: "10K", 32 << 20: "32M", 40 << 20: "40M", 64 << 20: "64M", 512 << 20: "512M", 999 << 20: "999M",
		999<<20 + 512<<10: "1.0G", 1000 << 20: "1.0G", 1 << 30: "1.0G", 2 << 40: "2.0T", 1000204886016: "932G",
		1 << 50: "1.0P", 1<<63 - 1: "8.0E",
	} {
		if got := humanize(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestDumpIsThatOfFreeBSD(t *testing.T) {
	var b bytes.Buffer
	printLabel(&b, "vtbd9", label{Metadata: ondisk.Metadata{
		Version: 1, Name: "hard", ID: 4115631206, Count: 1, Provider: "vtbd9", VirtualSize: 100 << 30, ChunkSize: 4 << 20,
		ChunkCount: 63, ChunkNext: 2, ChunkReserved: 2,
	}})
	if want := `Metadata on vtbd9:
          Magic string: GEOM::VIRSTOR
      Metadata version: 1
           Device name: hard
             Device ID: 4115631206
        Provider index: 0
      Active providers: 1
    Hardcoded provider: vtbd9
          Virtual size: 102400 MB
            Chunk size: 4096 kB
    Chunks on provider: 63
           Chunks free: 61
       Reserved chunks: 2

`; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
	if n := chunksFree(ondisk.Metadata{ChunkCount: 3, ChunkNext: 5}); n != 0 {
		t.Errorf("%d chunks free of a damaged provider", n)
	}
}

func TestDumpSaysWhichMemberAProviderIs(t *testing.T) {
	m := ondisk.Metadata{Version: ondisk.VersionFenced, Name: "vol", Member: ondisk.MemberBlock{
		ID: 0xabc, Generation: 8, Settled: 7, Began: 1795910400, LastName: "ada4\x1b[2J",
	}}
	var b bytes.Buffer
	printLabel(&b, "ada4", label{Metadata: m})
	if want := `             Member ID: 0000000000000abc
            Generation: 8
    Settled generation: 7
      Generation began: 2026-11-29T00:00:00Z
       Last known name: "ada4\x1b[2J"

`; !strings.HasSuffix(b.String(), want) {
		t.Errorf("got\n%s\nwant at its end\n%s", &b, want)
	}
	if got := dumped("ada4", label{Metadata: m}).Member; got == nil || got.ID != "0000000000000abc" || got.Settled != 7 || got.Began != "2026-11-29T00:00:00Z" {
		t.Errorf("JSON: %+v", got)
	}
	if dumped("ada4", label{Metadata: ondisk.Metadata{Version: ondisk.Version}}).Member != nil {
		t.Error("a provider without a block has one in JSON")
	}
}

func TestLabelTextIsThatOfFreeBSD(t *testing.T) {
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "written", VirtualSize: 1 << 30, ChunkSize: 1 << 20, Providers: []ondisk.LabelProvider{
		{Name: "vtbd3", Size: 32 << 20, SectorSize: 512}, {Name: "vtbd4", Size: 32 << 20, SectorSize: 512},
	}})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"vtbd3", "vtbd4"}
	got := labelHeading(l) + "\n"
	for _, s := range []struct {
		step virstor.LabelStep
		i    int
	}{{virstor.LabelClear, 0}, {virstor.LabelClear, 1}, {virstor.LabelMap, 0}, {virstor.LabelStore, 0}, {virstor.LabelStore, 1}} {
		got += labelProgress(l, names, s.step, s.i)
	}
	if want := `Total virtual chunks: 1024 (1 MB each), 1024 MB total virtual size.
Clearing metadata on vtbd3 vtbd4.
Writing allocation table to vtbd3... (0 MB, 1 chunks) ` + `
Storing metadata on vtbd3 (32 chunks) (2 reserved) vtbd4 (32 chunks) `; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestErrorTextIsThatOfStrerror(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&geomlibError{syscall.ENOENT}, "No such file or directory"},
		{syscall.EINVAL, "Invalid argument"},
		{syscall.EBUSY, "Device busy"},
		{syscall.EACCES, "Permission denied"},
		{geomlib.ErrNoMetadata, "Invalid argument"},
		{geomlib.ErrLocked, "Device busy"},
		{context.Canceled, "Interrupted"},
		{errors.New("a: odd size"), "a: odd size"},
	} {
		if got := errorText(c.err); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
	}
}

type geomlibError struct{ err error }

func (e *geomlibError) Error() string { return "x: " + e.err.Error() }
func (e *geomlibError) Unwrap() error { return e.err }

// screen is a terminal that tells what was drawn.
type screen struct {
	mu    sync.Mutex
	text  string
	drawn chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.text += string(p)
	s.mu.Unlock()
	select {
	case s.drawn <- struct{}{}:
	default:
	}
	return len(p), nil
}

// take waits until want has been drawn and forgets what was drawn till then.
func (s *screen) take(t *testing.T, want string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		s.mu.Lock()
		text := s.text
		if strings.Contains(text, want) {
			s.text = ""
			s.mu.Unlock()
			return text
		}
		s.mu.Unlock()
		select {
		case <-s.drawn:
		case <-deadline:
			t.Fatalf("%q is not drawn: %q", want, text)
		}
	}
}

func fakeStatus(state string) control.Status {
	return control.Status{Volumes: []control.VolumeStatus{{Name: "mydata", State: state, Components: []control.ComponentStatus{{Name: "ada4"}}}}}
}

// startFake serves fake until the test ends.
func startFake(t *testing.T, fake *controltest.Fake) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(fake, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestWatchDrawsInPlaceAndAtEvents(t *testing.T) {
	fake := controltest.New(fakeStatus("99% physical free"))
	path := startFake(t, fake)
	s := &screen{drawn: make(chan struct{}, 1)}
	// An hour between pictures: what is drawn anew is drawn for an event.
	e, _, stderr := testEnv("--control", path, "status", "--watch", "--interval", "3600")
	e.stdout, e.dial = s, control.Dial
	e.terminal = func() (int, int, bool) { return 30, 24, true }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, e) }()
	first := s.take(t, clearBelow)
	if want := clearScreen + cursorHome + "          Name             Sta" + clearLine + "\r\n" +
		"virstor/mydata  99% physical f" + clearLine + "\r\n" + clearBelow; first != want {
		t.Errorf("first picture %q\nwant          %q", first, want)
	}
	fake.SetStatus(fakeStatus("7% physical free"))
	publishUntil(t, fake, s, "7% physical")
	cancel()
	if status := <-ended; status != 0 || stderr.Len() != 0 {
		t.Errorf("exit %d, %s", status, stderr)
	}
}

// publishUntil publishes events until text is drawn: the stream of the watcher may
// not stand yet.
func publishUntil(t *testing.T, fake *controltest.Fake, s *screen, text string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		fake.Publish(control.Event{Kind: "allocated"})
		s.mu.Lock()
		found := strings.Contains(s.text, text)
		s.mu.Unlock()
		if found {
			return
		}
		select {
		case <-s.drawn:
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatalf("%q is not drawn", text)
}

func TestWatchSurvivesARestartOfTheDaemon(t *testing.T) {
	fake := controltest.New(fakeStatus("99% physical free"))
	path := startFake(t, fake)
	s := &screen{drawn: make(chan struct{}, 1)}
	e, _, _ := testEnv("--control", path, "status", "--watch")
	e.stdout, e.dial = s, control.Dial
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, e) }()
	s.take(t, "99% physical free")
	fake.Fail("status", control.Errorf(control.Internal, "restarting"))
	if text := s.take(t, "restarting"); strings.Contains(text, "\x1b") {
		t.Errorf("control sequences without a terminal: %q", text)
	}
	fake.Fail("status", nil)
	s.take(t, "99% physical free")
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("exit %d", status)
	}
}

func TestInPlaceCutsWhatDoesNotFit(t *testing.T) {
	got := string(inPlace([]byte("äöü\nb\nc\nd\n"), 2, 3, false))
	if want := cursorHome + "äö" + clearLine + "\r\nb" + clearLine + "\r\n" + clearBelow; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWatchEndsWhenItsReaderIsGone(t *testing.T) {
	fake := controltest.New(fakeStatus("99% physical free"))
	e, _, stderr := testEnv("--control", startFake(t, fake), "status", "--watch")
	e.stdout, e.dial = brokenPipe{}, control.Dial
	if status := run(t.Context(), e); status != 1 || !strings.Contains(stderr.String(), "Can't show the status") {
		t.Errorf("exit %d: %s", status, stderr)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func FuzzArgumentsNeverPanic(f *testing.F) {
	f.Add("label\x00-hv\x00-m4M\x00name\x00prov")
	f.Add("status\x00-ags\x00--json")
	f.Add("stop\x00-f\x00\x00")
	f.Add("label\x00-")
	f.Add("dump\x00--=\x00-é")
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\x00")
		if len(args) > 0 && (args[0] == "label" || args[0] == "clear" || args[0] == "dump") {
			// These touch providers: keep them to names that cannot exist.
			for _, a := range args[1:] {
				if a != "" && !strings.HasPrefix(a, "-") {
					return
				}
			}
		}
		e, _, _ := testEnv(args...)
		e.getenv = func(string) string { return "" }
		if status := run(t.Context(), e); status != 0 && status != 1 {
			t.Errorf("%q: exit %d", args, status)
		}
	})
}
