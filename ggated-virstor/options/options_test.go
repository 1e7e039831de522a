package options

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

// write makes a configuration file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parse reads options that must be right.
func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	var said bytes.Buffer
	o, err := parseOptions(NewHere(), args, &said, &said)
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, said.String())
	}
	return o
}

// parseOptions reads options as a program that names no file.
func parseOptions(w World, args []string, stdout, stderr io.Writer) (*Options, error) {
	return Parse(Program{Version: "test", DefaultConfig: "/nonexistent/ggated-virstor.conf"}, w, args, stdout, stderr)
}

func TestTheFileSetsWhatTheCommandLineDoesNot(t *testing.T) {
	conf := write(t, `
provider = da0
nbd = unix:/a
when-full = error
full-timeout = 90s
debug = true
[volume fast]
alloc = spread
full-timeout = 5s
held-memory = 1m
detect-zeroes = true
`)
	o := parse(t, "--config", conf, "--full-timeout", "7s", "da1")
	if !slices.Equal(o.Providers, []string{"da1", "da0"}) || !slices.Equal(o.NBD, []nbd.Address{{Network: "unix", Addr: "/a"}}) || o.Level.Level() != slog.LevelDebug {
		t.Errorf("providers %q, nbd %q, level %v", o.Providers, o.NBD, o.Level)
	}
	all := o.Policies()
	if all.WhenFull != virstor.Fail || all.FullTimeout.Seconds() != 7 || all.Alloc != virstor.Fill {
		t.Errorf("policies of all: %+v", all)
	}
	fast := o.PerVolume["fast"]
	if fast.WhenFull != virstor.Fail || fast.FullTimeout.Seconds() != 7 || fast.Alloc != virstor.Spread || fast.HeldLimit != 1<<20 || !fast.DetectZeroes || all.DetectZeroes {
		t.Errorf("policies of fast: %+v", fast)
	}
}

func TestAWrongFileIsNamedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"when-full = perhaps":                ":1: --when-full perhaps: one of wait, error is needed",
		"config = x":                         ":1: config: no such key",
		"[volume a]\nnbd = unix:/a":          ":2: nbd: no such key for a volume",
		"debug = true\nnbd = /tmp/socket":    ":2: --nbd /tmp/socket: NBD address \"/tmp/socket\": want unix:PATH or tcp:HOST:PORT",
		"debug = true\nnbd-allow = a:rw":     ":2: --nbd-allow \"a:rw\": EXPORT=ro:WHO or EXPORT=rw:WHO is needed: there is neither =ro: nor =rw:",
		"\n[volume a]\nfull-timeout = -5s":   ":3: --full-timeout -5s: must not be negative",
		"[volume a]\nalloc = x\nzero = auto": ":2: --alloc x: one of fill, spread is needed",
	} {
		conf := write(t, text)
		var said bytes.Buffer
		_, err := parseOptions(NewHere(), []string{"--check-config", "--config", conf}, &said, &said)
		if err == nil || ExitCode(err) != 1 || !strings.Contains(said.String(), conf+want) {
			t.Errorf("%q: %v, said %q, want %q", text, err, said.String(), want)
		}
	}
	var said bytes.Buffer
	if _, err := parseOptions(NewHere(), []string{"--config", "/nonexistent"}, &said, &said); err == nil {
		t.Error("a file that was named and is not there is no error")
	}
	if _, err := parseOptions(NewHere(), []string{"--check-config", "--config", write(t, "debug = true")}, &said, &said); ExitCode(err) != 0 {
		t.Errorf("a right file: %v: %s", err, said.String())
	}
}

func TestNBDOptionsThatContradictThemselvesAreRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"--tls-cert needs --tls-key":                        {"--tls-cert", "c"},
		"--tls-key needs --tls-cert":                        {"--tls-key", "k"},
		"--tls-client-ca needs --tls-cert and --tls-key":    {"--tls-client-ca", "ca"},
		"--nbd-max-clients 0: must be at least 1":           {"--nbd-max-clients", "0"},
		"--nbd-max-peer-clients 300: from 0 to":             {"--nbd-max-peer-clients", "300"},
		"--nbd-idle -1s: must not be negative":              {"--nbd-idle", "-1s"},
		"--nbd-allow \"x\": EXPORT=ro:WHO or EXPORT=rw:WHO": {"--nbd-allow", "x"},
		"--nbd-allow a=rw:tls:b: needs --tls-client-ca":     {"--nbd-allow", "a=rw:tls:b"},
		"--nbd x: NBD address \"x\": want unix:PATH or tcp": {"--nbd", "unix:/a", "--nbd", "x"},
	} {
		var said bytes.Buffer
		if _, err := parseOptions(NewHere(), args, &said, &said); err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%q: %v, said %q, want %q", args, err, said.String(), want)
		}
	}
}

var sampleLine = regexp.MustCompile(`^#([a-z-]+) =(?: (.*))?$`)

func TestTheSampleHasEveryKeyWithItsDefault(t *testing.T) {
	text, err := os.ReadFile("../ggated-virstor.conf.sample")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseFile("sample", bytes.NewReader(text)); err != nil {
		t.Error(err)
	}
	shown := make(map[string]string)
	for _, line := range strings.Split(string(text), "\n") {
		if m := sampleLine.FindStringSubmatch(line); m != nil {
			if _, twice := shown[m[1]]; !twice {
				shown[m[1]] = m[2]
			}
		}
	}
	machine := []string{"run-dir", "backup-dir", "state-dir", "gate", "grow-max"} // depend on the user and the system, or on the example of grow
	keySet(flagsOf(t)).VisitAll(func(f *pflag.Flag) {
		value, ok := shown[f.Name]
		delete(shown, f.Name)
		switch {
		case !ok:
			t.Errorf("%s is missing", f.Name)
		case !repeatable(f) && !slices.Contains(machine, f.Name) && value != f.DefValue:
			t.Errorf("%s = %s, the default is %s", f.Name, value, f.DefValue)
		}
	})
	for key := range shown {
		t.Errorf("%s is no key", key)
	}
	uncommented := regexp.MustCompile(`(?m)^#([a-z-]+ =|\[)`).ReplaceAll(text, []byte("$1"))
	parse(t, "--config", write(t, string(uncommented)))
}

// flagsOf are the options as they are declared.
func flagsOf(t *testing.T) *pflag.FlagSet {
	t.Helper()
	return parse(t).flags
}

func TestAWrongOptionIsToldInTwoLinesAndHelpIsNoError(t *testing.T) {
	var out, errs bytes.Buffer
	_, err := parseOptions(NewHere(), []string{"--frob"}, &out, &errs)
	if ExitCode(err) != 1 || out.Len() > 0 || !strings.HasPrefix(errs.String(), "ggated-virstor: unknown flag: --frob\n") || strings.Count(errs.String(), "\n") != 2 {
		t.Errorf("%v: %s%s", err, out.String(), errs.String())
	}
	for _, help := range []string{"--help", "-h"} {
		out.Reset()
		errs.Reset()
		_, err := parseOptions(NewHere(), []string{help}, &out, &errs)
		if ExitCode(err) != 0 || errs.Len() > 0 || !strings.Contains(out.String(), "--check-config") {
			t.Errorf("%s: %v: %s%s", help, err, out.String(), errs.String())
		}
	}
}
