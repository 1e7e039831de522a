package main

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/config"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
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

func parse(t *testing.T, args ...string) options {
	t.Helper()
	var said bytes.Buffer
	o, err := parseOptions(newHereWorld(), args, &said, &said)
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, said.String())
	}
	return o
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
	if !slices.Equal(o.providers, []string{"da1", "da0"}) || !slices.Equal(o.nbd, []string{"unix:/a"}) || o.level.Level() != slog.LevelDebug {
		t.Errorf("providers %q, nbd %q, level %v", o.providers, o.nbd, o.level)
	}
	all, err := o.policies()
	if err != nil {
		t.Fatal(err)
	}
	if all.WhenFull != virstor.Fail || all.FullTimeout.Seconds() != 7 || all.Alloc != virstor.Fill {
		t.Errorf("policies of all: %+v", all)
	}
	fast := o.perVolume["fast"]
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
		_, err := parseOptions(newHereWorld(), []string{"--check-config", "--config", conf}, &said, &said)
		if err == nil || exitCode(err) != 1 || !strings.Contains(said.String(), conf+want) {
			t.Errorf("%q: %v, said %q, want %q", text, err, said.String(), want)
		}
	}
	var said bytes.Buffer
	if _, err := parseOptions(newHereWorld(), []string{"--config", "/nonexistent"}, &said, &said); err == nil {
		t.Error("a file that was named and is not there is no error")
	}
	if _, err := parseOptions(newHereWorld(), []string{"--check-config", "--config", write(t, "debug = true")}, &said, &said); exitCode(err) != 0 {
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
		if _, err := parseOptions(newHereWorld(), args, &said, &said); err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%q: %v, said %q, want %q", args, err, said.String(), want)
		}
	}
}

// recorded notes what a reload does.
type recorded struct {
	all       virstor.Config
	each      map[string]virstor.Config
	providers []string
	levels    space.Thresholds
	space     space.SpareOptions
	commands  []space.Runner
	grants    []nbd.Grant
	certs     *tls.Config
}

func (r *recorded) SetGrants(gs []nbd.Grant)       { r.grants = gs }
func (r *recorded) SetTLS(certs *tls.Config) error { r.certs = certs; return nil }

func (r *recorded) SetPolicies(all virstor.Config, each map[string]virstor.Config) {
	r.all, r.each = all, each
}
func (r *recorded) SetAlertLevels(c space.Thresholds) { r.levels = c }
func (r *recorded) SetAlertCommand(run space.Runner, _ time.Duration) {
	r.commands = append(r.commands, run)
}
func (r *recorded) SetSpares(o space.SpareOptions) { r.space = o }
func (r *recorded) ServeAll(p []string) int        { r.providers = p; return len(p) }

// spaceOf is that of a process without a supervisor.
func spaceOf(o *options) (space.AlertOptions, space.SpareOptions, error) {
	svc := service{runner: (*spaceOptions).runner}
	return svc.space(o)
}

func TestReloadAppliesWhatCanChangeAndNamesTheRest(t *testing.T) {
	conf := write(t, "provider = da0\n")
	args := []string{"--config", conf}
	var got recorded
	var log bytes.Buffer
	r := &reloader{args: args, look: lookHere, now: parse(t, args...), daemon: &got, space: spaceOf, clients: &got,
		readTLS: func() (*tls.Config, error) { return nil, nil }, log: slog.New(slog.NewTextHandler(&log, nil))}
	text := "provider = da0\nprovider = da1\nwhen-full = error\nheld-memory = 1m\nreserve = 7\nalert-percent = 50\non-alert = true\nspare = a=da2\nspare-at = 70\ndebug = true\nnbd-allow = a=ro:any\nalloc = spread\n[volume a]\nfull-timeout = 5s\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if got.all.WhenFull != virstor.Fail || got.each["a"].FullTimeout.Seconds() != 5 || !slices.Equal(got.providers, []string{"da0", "da1", "da2"}) {
		t.Errorf("applied %+v", got)
	}
	if got.all.HeldLimit != 1<<20 || got.all.Reserve != 7 || !slices.Equal(got.levels.Percent, []int{50}) ||
		got.space.Percent != 70 || got.space.Spares["da2"] != "a" || !slices.Equal(got.commands, []space.Runner{space.Shell{Command: "true"}}) {
		t.Errorf("applied %+v", got)
	}
	if len(got.grants) != 1 || got.grants[0].String() != "a=ro:any" {
		t.Errorf("grants %v", got.grants)
	}
	if r.now.level.Level() != slog.LevelDebug {
		t.Errorf("log level %v", r.now.level.Level())
	}
	if !strings.Contains(log.String(), "needs a restart") || !strings.Contains(log.String(), "keys=alloc") {
		t.Errorf("log: %s", log.String())
	}
	r.reload()
	if len(got.commands) != 1 {
		t.Errorf("commands %v though nothing changed", got.commands)
	}
	got = recorded{}
	if err := os.WriteFile(conf, []byte("when-full = perhaps"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if got.providers != nil || !strings.Contains(log.String(), "conf:1: --when-full perhaps") {
		t.Errorf("a wrong file was applied: %+v, log %s", got, log.String())
	}
}

var sampleLine = regexp.MustCompile(`^#([a-z-]+) =(?: (.*))?$`)

func TestTheSampleHasEveryKeyWithItsDefault(t *testing.T) {
	text, err := os.ReadFile("ggated-virstor.conf.sample")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Parse("sample", bytes.NewReader(text)); err != nil {
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
		case !config.Repeatable(f) && !slices.Contains(machine, f.Name) && value != f.DefValue:
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
