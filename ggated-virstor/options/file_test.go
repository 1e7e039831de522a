package options

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func flags() (*pflag.FlagSet, *string, *[]string) {
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	level := f.String("level", "low", "")
	nbd := f.StringArray("nbd", nil, "")
	f.Bool("debug", false, "")
	return f, level, nbd
}

func TestSettingsReachTheFlagsOfTheirSection(t *testing.T) {
	file, err := ParseFile("conf", strings.NewReader(`
# a comment
nbd = unix:/a # not a comment
nbd = "unix:/with \"quotes\" and \\ "
level=high
[volume fast]
	level =	low	
[volume other]
level = middle
`))
	if err != nil {
		t.Fatal(err)
	}
	f, level, nbd := flags()
	if err := file.Apply("", f, nil); err != nil {
		t.Fatal(err)
	}
	if *level != "high" || !slices.Equal(*nbd, []string{"unix:/a # not a comment", `unix:/with "quotes" and \ `}) {
		t.Errorf("level %q, nbd %q", *level, *nbd)
	}
	if got := file.Volumes(); !slices.Equal(got, []string{"fast", "other"}) {
		t.Errorf("volumes %q", got)
	}
	for volume, want := range map[string]string{"fast": "low", "other": "middle"} {
		f, level, _ := flags()
		if err := file.Apply(volume, f, nil); err != nil || *level != want {
			t.Errorf("%s: level %q, %v", volume, *level, err)
		}
	}
}

func TestTheCommandLineWins(t *testing.T) {
	file, err := ParseFile("conf", strings.NewReader("level = high\ndebug = true"))
	if err != nil {
		t.Fatal(err)
	}
	f, level, _ := flags()
	if err := file.Apply("", f, map[string]bool{"level": true}); err != nil {
		t.Fatal(err)
	}
	if *level != "low" || f.Lookup("debug").Value.String() != "true" {
		t.Errorf("level %q, debug %v", *level, f.Lookup("debug").Value)
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	for text, want := range map[string]string{
		"level":                           `conf:1: "level": key = value is needed`,
		"\n= x":                           `conf:2: "= x": key = value is needed`,
		"two words = x":                   `conf:1: "two words = x": key = value is needed`,
		"level = \"x":                     "conf:1: level: closing quote is missing",
		"level = \"x\" y":                 "conf:1: level: text after the closing quote",
		"\n\nlevle = x":                   "conf:3: levle: no such key",
		"level = a\nlevel = b":            "conf:2: level: set in line 1 already",
		"debug = perhaps":                 "conf:1: debug = perhaps: must be true or false",
		"[volume]":                        "conf:1: section [volume]: [volume NAME] is needed",
		"[volume a b]":                    "conf:1: section [volume a b]: [volume NAME] is needed",
		"[volume a":                       "conf:1: section [volume a: [volume NAME] is needed",
		"[volume sixteen-letters-]":       "conf:1: section [volume sixteen-letters-]: a volume's name has at most 15 characters",
		"level = \xff":                    "conf:1: not a text",
		"level = bad":                     "conf:1: --level bad: too bad",
		"# " + strings.Repeat("x", 1<<20): "read the configuration conf: more than 1048576 bytes",
	} {
		f, level, _ := flags()
		file, err := ParseFile("conf", strings.NewReader(text))
		if err == nil {
			bound(f, "level", level, func(s string) bool { return s != "bad" }, "too bad")
			err = file.Apply("", f, nil)
		}
		if err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a = b\n[volume x]\nlevel = \"q\\\"\"")
	f.Add("[")
	f.Add("\"")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := ParseFile("conf", strings.NewReader(text))
		if err != nil {
			return
		}
		lines := strings.Split(text, "\n")
		for _, s := range file.Settings {
			if s.Key == "" || s.Line < 1 || s.Line > len(lines) || !strings.Contains(lines[s.Line-1], s.Key) {
				t.Fatalf("%+v is not in line %d", s, s.Line)
			}
		}
		set, _, _ := flags()
		_ = file.Apply("", set, nil)
	})
}

func TestTheNullDeviceIsAnEmptyConfiguration(t *testing.T) {
	file, err := LoadFile(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Settings) != 0 {
		t.Errorf("%+v", file)
	}
}
