package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
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

func parse(t *testing.T, args ...string) *options.Options {
	t.Helper()
	var said bytes.Buffer
	o, err := parseOptions(options.NewHere(), args, &said, &said)
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, said.String())
	}
	return o
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

// here is the host of a process without a supervisor, with certificates of its own.
type here struct {
	direct
	certs func() (*tls.Config, error)
	told  []string // of reloads
}

func (h *here) Reloading() { h.told = append(h.told, "reloading") }
func (h *here) Reloaded()  { h.told = append(h.told, "reloaded") }

func (h *here) Certificates() (*tls.Config, error) { return h.certs() }

func TestReloadAppliesWhatCanChangeAndNamesTheRest(t *testing.T) {
	conf := write(t, "provider = da0\n")
	args := []string{"--config", conf}
	var got recorded
	var log bytes.Buffer
	h := &here{certs: func() (*tls.Config, error) { return nil, nil }}
	r := &reloader{args: args, settings: h, now: parse(t, args...), daemon: &got,
		clients: &got, log: slog.New(slog.NewTextHandler(&log, nil))}
	text := "provider = da0\nprovider = da1\nwhen-full = error\nheld-memory = 1m\nreserve = 7\nalert-percent = 50\non-alert = true\nspare = a=da2\nspare-at = 70\ndebug = true\nnbd-allow = a=ro:any\nalloc = spread\n[volume a]\nfull-timeout = 5s\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if !slices.Equal(h.told, []string{"reloading", "reloaded"}) {
		t.Errorf("told %q", h.told)
	}
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
	if r.now.Level.Level() != slog.LevelDebug {
		t.Errorf("log level %v", r.now.Level.Level())
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

func TestAReloadKeepsCertificatesThatCannotBeReplaced(t *testing.T) {
	conf := write(t, "")
	args := []string{"--config", conf}
	var got recorded
	var log bytes.Buffer
	r := &reloader{args: args, settings: &here{certs: func() (*tls.Config, error) { return nil, errors.New("key.pem: no such file") }}, now: parse(t, args...), daemon: &got,
		clients: &got, log: slog.New(slog.NewTextHandler(&log, nil))}
	r.reload()
	if got.certs != nil || !strings.Contains(log.String(), "those before stay in force") || !strings.Contains(log.String(), "key.pem") {
		t.Errorf("certificates %v, log %s", got.certs, log.String())
	}
	if !strings.Contains(log.String(), "configuration read again") {
		t.Error("the rest of the configuration is not applied")
	}
}
