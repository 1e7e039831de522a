package options

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckConfigLooksAtTheWorld: what would end the start, or lets others in, is
// told before.
func TestCheckConfigLooksAtTheWorld(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	none := filepath.Join(dir, "none")
	for want, args := range map[string][]string{
		"--nbd tcp:0.0.0.0:10809: other machines can reach this address": {"--nbd", "tcp:0.0.0.0"},
		"--nbd tcp:[::]:1: other machines can reach this address":        {"--nbd", "tcp:[::]:1"},
		"load TLS certificate " + none:                                   {"--tls-cert", none, "--tls-key", none},
		"refused: others can write to it; mend it with `chmod go-w":      {"--config", file("open", 0o666)},
		"refused: others can read it; mend it with `chmod o-r":           {"--tls-cert", none, "--tls-key", file("key", 0o644)},
		"--http a:b:c: HOST:PORT is needed":                              {"--http", "a:b:c"},
	} {
		var said bytes.Buffer
		if _, err := parseOptions(NewHere(), append([]string{"--check-config"}, args...), &said, &said); !errors.Is(err, ErrUsage) || !strings.Contains(said.String(), want) {
			t.Errorf("%q: %v, said %q, want %q", args, err, said.String(), want)
		}
	}
	var said bytes.Buffer
	args := []string{"--check-config", "--config", file("good", 0o644), "--nbd", "tcp:127.0.0.1:0", "--http", "0.0.0.0:9751"}
	_, err := parseOptions(NewHere(), args, &said, &said)
	if !errors.Is(err, ErrHelp) || !strings.Contains(said.String(), "the configuration is right") || !strings.Contains(said.String(), "warning: --http 0.0.0.0:9751: other machines") {
		t.Errorf("%v: %s", err, said.String())
	}
}
