// Package house checks that the tree keeps the rules of the house: which
// folders there are, and which package may import which.
package house

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/gvirstor/gvirstor/"
)

// rule says what the files of a folder, and of those below it, may import of
// this module and from elsewhere.
type rule struct {
	dir       string
	own       []string // packages of this module, with those below them
	alone     []string // packages of this module, without those below them
	elsewhere []string // modules beside the standard library
	forbid    []string // of the standard library
}

var rules = []rule{
	{dir: "ondisk"},
	{dir: "geomlib/virstor", own: []string{"ondisk", "geomlib", "geomlib/virstor"},
		forbid: []string{"net", "net/http", "flag", "os/exec"}},
	{dir: "geomlib/virstor/internal/alloc"},
	{dir: "geomlib/virstor/internal/extblock", own: []string{"ondisk"}, alone: []string{"geomlib"}},
	{dir: "geomlib/virstor/internal/lease", own: []string{"ondisk"}},
	{dir: "geomlib/virstor/internal/mapio", own: []string{"ondisk", "geomlib/virstor/internal/chunkmap"}, alone: []string{"geomlib"}},
	{dir: "geomlib/virstor/internal/member", own: []string{"ondisk"}},
	{dir: "geomlib/virstor/internal/chunkmap", own: []string{"geomlib/virstor/internal/alloc"}},
	{dir: "geomlib/gate", own: []string{"geomlib/gate"}, elsewhere: []string{"golang.org/x/sys"},
		forbid: []string{"net/http", "flag"}},
	{dir: "geomlib", own: []string{"ondisk", "geomlib"}, elsewhere: []string{"golang.org/x/sys"},
		forbid: []string{"net", "net/http", "flag"}},
	{dir: "ggated-virstor/nbd", own: []string{"geomlib/ownfile", "geomlib/virstor", "ggated-virstor/nbd", "ggated-virstor/peercred"}, elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/nbd/nbdcomp", own: []string{"geomlib", "ggated-virstor/nbd/nbdclient"}, elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/nbd/nbdtest", own: []string{"geomlib/virstor"}, alone: []string{"geomlib"}},
	{dir: "ggated-virstor/nbd/nbdpub", own: []string{"geomlib/virstor", "ggated-virstor/control", "ggated-virstor/nbd", "ggated-virstor/publish"}},
	{dir: "ggated-virstor/space", own: []string{"ondisk", "geomlib", "ggated-virstor/control", "ggated-virstor/publish"}, elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/options", own: []string{"ondisk", "geomlib", "ggated-virstor/control", "ggated-virstor/nbd", "ggated-virstor/space", "ggated-virstor/web"},
		elsewhere: []string{"github.com/spf13/pflag"}},
	{dir: "ggated-virstor/web", own: []string{"ondisk", "geomlib/virstor", "ggated-virstor/control", "ggated-virstor/nbd"}, elsewhere: []string{"github.com/prometheus/client_golang"}},
	{dir: "ggated-virstor/daemon", own: []string{"ondisk", "geomlib", "ggated-virstor/control", "ggated-virstor/publish", "ggated-virstor/space", "ggated-virstor/verbs", "ggated-virstor/web"},
		elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/peercred", elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/supervisor", own: []string{"geomlib", "ggated-virstor/control", "ggated-virstor/gatepub", "ggated-virstor/peercred", "ggated-virstor/publish", "ggated-virstor/space", "ggated-virstor/web"},
		elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/publish/publishtest", own: []string{"ondisk", "geomlib", "ggated-virstor/publish"}},
	{dir: "ggated-virstor/providers", own: []string{"geomlib", "ggated-virstor/nbd/nbdclient", "ggated-virstor/nbd/nbdcomp"}},
	{dir: "ggated-virstor/publish", own: []string{"geomlib", "ggated-virstor/control"}},
	{dir: "ggated-virstor/gatepub", own: []string{"geomlib", "ggated-virstor/control", "ggated-virstor/gatepub", "ggated-virstor/publish"}},
	{dir: "ggated-virstor/gatepub/serve", own: []string{"geomlib"}},
	{dir: "ggated-virstor/gatepub/units", own: []string{"geomlib"}},
	{dir: "ggated-virstor/gatepub/helper", own: []string{"geomlib/gate"}},
	{dir: "ggated-virstor/confine", elsewhere: []string{"golang.org/x/sys", "github.com/elastic/go-seccomp-bpf"}},
	{dir: "ggated-virstor/control", own: []string{"ondisk", "geomlib", "ggated-virstor/control", "ggated-virstor/peercred"}, elsewhere: []string{"golang.org/x/sys"}},
	{dir: "ggated-virstor/verbs", own: []string{"ondisk", "geomlib", "ggated-virstor/control"}, forbid: []string{"net", "net/http", "flag"}},
	{dir: "ggated-virstor", own: []string{"ondisk", "geomlib", "ggated-virstor"},
		elsewhere: []string{"golang.org/x/sys", "github.com/coreos/go-systemd/v22"}},
	{dir: "gvirstor", own: []string{"ondisk", "geomlib", "ggated-virstor/control", "ggated-virstor/providers", "ggated-virstor/verbs", "gvirstor"},
		elsewhere: []string{"golang.org/x/sys", "golang.org/x/term", "github.com/spf13/pflag"}},
}

func TestImportsKeepTheRulesOfTheHouse(t *testing.T) {
	seen := make(map[string]bool)
	for _, path := range goFiles(t) {
		rel, _ := filepath.Rel(root, path)
		rel = filepath.ToSlash(rel)
		if strings.HasSuffix(rel, "_test.go") {
			continue
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		r := ruleFor(dir)
		if r == nil {
			if !strings.HasPrefix(dir, "tests") {
				t.Errorf("%s: no rule of the house covers this folder", rel)
			}
			continue
		}
		if r.dir == "ggated-virstor" && dir != r.dir {
			t.Errorf("%s: each room below ggated-virstor needs a rule of its own", rel)
		}
		seen[r.dir] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, im := range f.Imports {
			name, _ := strconv.Unquote(im.Path.Value)
			if why := r.refuses(dir, name); why != "" {
				t.Errorf("%s imports %s: %s", rel, name, why)
			}
		}
	}
	for _, r := range rules {
		if !seen[r.dir] {
			t.Errorf("rule for %s covers no file", r.dir)
		}
	}
}

// ruleFor finds the most specific rule.
func ruleFor(dir string) *rule {
	var best *rule
	for i := range rules {
		r := &rules[i]
		if (dir == r.dir || strings.HasPrefix(dir, r.dir+"/")) && (best == nil || len(r.dir) > len(best.dir)) {
			best = r
		}
	}
	return best
}

func (r *rule) refuses(dir, name string) string {
	if own, ok := strings.CutPrefix(name, module); ok {
		if own == dir || strings.HasPrefix(own, dir+"/") {
			return ""
		}
		if !slices.Contains(r.alone, own) && !slices.ContainsFunc(r.own, func(p string) bool { return own == p || strings.HasPrefix(own, p+"/") }) {
			return "not allowed for " + r.dir
		}
		return ""
	}
	if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
		if !slices.ContainsFunc(r.elsewhere, func(p string) bool { return name == p || strings.HasPrefix(name, p+"/") }) {
			return "not a dependency of " + r.dir
		}
		return ""
	}
	if slices.Contains(r.forbid, name) {
		return r.dir + " knows nothing of it"
	}
	if name == "C" {
		return "no cgo"
	}
	return ""
}

// strangers are what a folder, and those below it, must not come to know in any way: not
// by what it imports, nor by what that imports.
var strangers = []struct{ dir, never string }{
	{"ondisk", "geomlib"},
	{"geomlib", "ggated-virstor"},
	{"geomlib/gate", "geomlib/virstor"},
	{"ggated-virstor/control", "geomlib/virstor"}, // who asks a daemon needs no engine
	{"ggated-virstor/control", "geomlib/gate"},
	{"ggated-virstor/space", "ggated-virstor/daemon"},
	{"ggated-virstor/verbs", "ggated-virstor/daemon"}, // they serve stopped volumes, too
	{"ggated-virstor/supervisor", "ggated-virstor/daemon"},
	{"ggated-virstor/nbd", "ggated-virstor/daemon"},
	{"ggated-virstor/gatepub", "ggated-virstor/daemon"},
	{"ggated-virstor/publish", "ggated-virstor/daemon"},
	{"ggated-virstor/options", "ggated-virstor/daemon"},
	{"ggated-virstor/web", "ggated-virstor/daemon"},
	{"gvirstor", "ggated-virstor/daemon"},
	{"gvirstor", "geomlib/gate"},
}

func TestNobodyReachesAStrangerThroughOthers(t *testing.T) {
	imports := importsByFolder(t)
	for _, s := range strangers {
		found := false
		for dir := range imports {
			if within(dir, s.dir) {
				found = true
				if way := wayTo(imports, dir, s.never, map[string]bool{}); way != nil {
					t.Errorf("%s must not know %s: %s", s.dir, s.never, strings.Join(way, " imports "))
				}
			}
		}
		if !found {
			t.Errorf("there is no %s", s.dir)
		}
	}
}

// within reports whether dir is top or below it.
func within(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

// importsByFolder are the folders of this module that the files of each import, but for
// tests.
func importsByFolder(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, path := range goFiles(t) {
		rel, _ := filepath.Rel(root, path)
		if rel = filepath.ToSlash(rel); strings.HasSuffix(rel, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		all[dir] = slices.Clip(all[dir]) // there is such a folder, though it may import none
		for _, im := range f.Imports {
			name, _ := strconv.Unquote(im.Path.Value)
			if own, ok := strings.CutPrefix(name, module); ok {
				all[dir] = append(all[dir], own)
			}
		}
	}
	return all
}

// wayTo is how dir comes to import a folder that never means, or nil.
func wayTo(imports map[string][]string, dir, never string, seen map[string]bool) []string {
	seen[dir] = true
	for _, next := range imports[dir] {
		if within(next, never) {
			return []string{dir, next}
		}
		if seen[next] {
			continue
		}
		if way := wayTo(imports, next, never, seen); way != nil {
			return append([]string{dir}, way...)
		}
	}
	return nil
}

func TestTopLevelIsTheListOfTheHouse(t *testing.T) {
	allowed := []string{"ggated-virstor", "gvirstor", "geomlib", "ondisk", "man", "rc.d", "tests",
		"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "bin", "dist"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}
