package options

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// TestAValueThatIsWrongByItselfIsRefusedWhereItStands: the command line without a page of
// usage, and a file with its line.
func TestAValueThatIsWrongByItselfIsRefusedWhereItStands(t *testing.T) {
	for _, c := range []struct{ option, value, want string }{
		{"receivers", "0", "1 to 4 are possible"},
		{"receivers", "5", "1 to 4 are possible"},
		{"backups", "-1", "must not be negative"},
		{"unit", "-2", "must not be negative"},
		{"gate-name", "/dev/x", "is given without /dev/"},
		{"nbd-max-clients", "0", "must be at least 1"},
		{"nbd-idle", "-1s", "must not be negative"},
		{"nbd-component-timeout", "0s", "must be more than nothing"},
		{"nbd-component-grace", "-1s", "must be more than nothing"},
		{"nbd", "x", `NBD address "x": want unix:PATH or tcp:HOST:PORT`},
		{"supervise", "perhaps", "one of auto, yes, no, true, false is needed"},
		{"when-full", "", "one of wait, error is needed"},
		{"full-timeout", "-1s", "must not be negative"},
		{"held-memory", "", "a size such as 64m is needed"},
		{"held-memory", "0", "a size such as 64m is needed"},
		{"zero", "Auto", "one of auto, never is needed"},
		{"zero-ahead", "-8", "must not be negative"},
		{"discard", "yes", "one of on, passdown-only, off is needed"},
		{"on-alert-timeout", "0s", "must be more than nothing"},
		{"reserve", "-1", "auto or a number of chunks is needed"}, {"reserve", "few", "auto or a number of chunks is needed"},
		{"spare", "vol", "NAME=PROV is needed"},
		{"spare-at", "101", "from 0 to 100"},
		{"grow", "vol=/d:1", "a size of at least 1m is needed"},
		{"grow-max", "much", "a size such as 64m is needed"},
	} {
		want := "--" + c.option + " " + c.value + ": " + c.want
		var said bytes.Buffer
		if _, err := parseOptions(NewHere(), []string{"--" + c.option + "=" + c.value}, &said, &said); err == nil || said.String() != "ggated-virstor: "+want+"\n" {
			t.Errorf("command line: %v, said %q, want %q", err, said.String(), want)
		}
		said.Reset()
		conf := write(t, "debug = true\n"+c.option+" = "+c.value)
		line := "ggated-virstor: " + conf + ":2: " + want + "\n"
		if _, err := parseOptions(NewHere(), []string{"--config", conf}, &said, &said); err == nil || said.String() != line {
			t.Errorf("file: %v, said %q, want %q", err, said.String(), line)
		}
	}
}

func TestWhatContradictsSomethingElseIsRefusedWhenAllIsRead(t *testing.T) {
	for want, args := range map[string][]string{
		"--unit and --gate-name: only one of them names a device": {"--unit", "3", "--gate-name", "x"},
		"--grow-max needs --grow":                                 {"--grow-max", "1g"},
		"--grow needs --grow-max with a size":                     {"--grow", "vol=/d:1m"},
		"--grow vol=/e:2m: there is one for vol already":          {"--grow", "vol=/d:1m", "--grow", "vol=/e:2m", "--grow-max", "1g"},
	} {
		var said bytes.Buffer
		if _, err := parseOptions(NewHere(), args, &said, &said); err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%q: %v, said %q, want %q", args, err, said.String(), want)
		}
	}
}

// TestSuperviseIsSaidInFiveWays: without auto, which depends on the user.
func TestSuperviseIsSaidInFiveWays(t *testing.T) {
	for value, want := range map[string]bool{"": true, "=yes": true, "=true": true, "=no": false, "=false": false} {
		if o := parse(t, "--gate=false", "--supervise"+value); o.Supervise != want {
			t.Errorf("--supervise%s makes %v", value, o.Supervise)
		}
		if o := parse(t, "--gate", "--supervise"+value); !o.Supervise {
			t.Errorf("--gate --supervise%s has no worker", value)
		}
	}
}

func TestAUserWhomNobodyWouldBecomeIsRefused(t *testing.T) {
	for _, c := range []struct {
		root       bool
		args, want string // want is empty where it is right
	}{
		{true, "--supervise --user nobody", ""},
		{true, "--user root --supervise=no", ""},
		{true, "--supervise=no", ""},
		{false, "--user=", ""},
		{false, "--supervise", ""},
		{true, "--user nobody --supervise=no", "--user nobody needs a worker"},
		{true, "--user nobody --run true", "--user nobody needs a worker"},
		{false, "--user nobody --supervise", "only root can become another user"},
		{false, "--user root", "only root can become another user"},
	} {
		var said bytes.Buffer
		_, err := parseOptions(Told{Own: Defaults{Root: c.root}}, append(strings.Fields(c.args), "--gate=false"), &said, &said)
		if (err == nil) != (c.want == "") || !strings.Contains(said.String(), c.want) {
			t.Errorf("root %t, %s: %v, said %q, want %q", c.root, c.args, err, said.String(), c.want)
		}
	}
}

func TestASizeIsShownAsItIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Min(1).Draw(t, "n") << rapid.SampledFrom([]int{0, 0, 10, 20, 30, 40}).Draw(t, "shift")
		if n <= 0 {
			t.Skip("too large")
		}
		var back int64
		text, err := size{bytes: &n}.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := (size{bytes: &back}).UnmarshalText(text); err != nil || back != n {
			t.Fatalf("%d is shown as %s, which is %d: %v", n, text, back, err)
		}
		if m, err := control.ExpandNumber(string(text)); err != nil || m != n {
			t.Fatalf("%s is %d for others: %v", text, m, err)
		}
	})
}
