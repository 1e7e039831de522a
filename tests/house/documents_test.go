package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// quoted matches what a document has between backquotes.
var quoted = regexp.MustCompile("`([^`\n]+)`")

// top matches what may begin a path of the tree.
var top = regexp.MustCompile(`^(ondisk|geomlib|ggated-virstor|gvirstor|man|rc\.d|tests|\.ci|\.github)(/|$)`)

func TestEveryPathThatADocumentNamesIsThere(t *testing.T) {
	for _, name := range []string{".github/CONTRIBUTING.md", "tests/README.md"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		paths := 0
		for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
			if !top.MatchString(m[1]) || strings.ContainsAny(m[1], " *") {
				continue
			}
			paths++
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s: %v", name, m[1], err)
			}
		}
		if paths < 10 {
			t.Errorf("%s names %d paths", name, paths)
		}
	}
}
