package blackbox

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestShellsCompleteVerbsOptionsAndVolumes by what the tool prints for each, in these
// shells.
func TestShellsCompleteVerbsOptionsAndVolumes(t *testing.T) {
	need(t, "zsh", "fish", "tcsh")
	s := newSite(t, 24*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start()
	shell := func(name, script string) []string {
		t.Helper()
		c := exec.CommandContext(t.Context(), name, "-c", script)
		c.Dir = s.dir
		c.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "GVIRSTOR_CONTROL="+s.control, "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return strings.Fields(string(out))
	}
	// What the functions of zsh's completion get; without a terminal there is none.
	zsh := func(load string, words []string) []string {
		return shell("zsh", "compdef() { }; _files() { }; _describe() { print -l ${(P)2%%:*} }; compadd() { shift; print -l -- \"$@\" }; "+load+"; words=("+
			strings.Join(words, " ")+"); CURRENT=$#words; _gvirstor")
	}
	// Each completes the last of the words.
	complete := map[string]func(words ...string) []string{
		"bash": func(words ...string) []string {
			return shell("bash", "source <(gvirstor completion bash); COMP_WORDS=("+strings.Join(words, " ")+"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _gvirstor; printf '%s\\n' \"${COMPREPLY[@]}\"")
		},
		"zsh": func(words ...string) []string { return zsh("source <(gvirstor completion zsh)", words) },
		"zsh by itself": func(words ...string) []string {
			return zsh("gvirstor completion zsh >_gvirstor; fpath=($PWD $fpath); autoload -U _gvirstor", words)
		},
		"fish": func(words ...string) []string {
			return shell("fish", "gvirstor completion fish | source; complete -C '"+strings.Join(words, " ")+"'")
		},
	}
	for name, of := range complete {
		for _, c := range []struct {
			words []string
			want  string
		}{{[]string{"gvirstor", "sta"}, "status"}, {[]string{"gvirstor", "status", "--wa"}, "--watch"}, {[]string{"gvirstor", "label", "--sec"}, "--sector-size"}, {[]string{"gvirstor", "list", "vo"}, "vol"}} {
			if got := of(c.words...); !slices.Contains(got, c.want) {
				t.Errorf("%s completes %q by %q, not by %s", name, c.words, got, c.want)
			}
		}
		if got := of("gvirstor", "label", "--wa"); slices.Contains(got, "--watch") {
			t.Errorf("%s completes the options of another verb: %q", name, got)
		}
	}
	// It has the rules; they are followed at a terminal alone.
	if got := strings.Join(shell("tcsh", "eval \"`gvirstor completion tcsh`\"; complete"), " "); !strings.Contains(got, "gvirstor 'p/1/(add alert ") || !strings.Contains(got, " watch") {
		t.Errorf("tcsh has %s", got)
	}
}
