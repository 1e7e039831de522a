package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

// opening matches the word that a comment begins with, as a name of Go.
var opening = regexp.MustCompile(`^(?:(?:A|An|The) )?([A-Za-z_][A-Za-z0-9_]*)`)

// TestCommentsBeginWithTheNameOfWhatTheyAreAbout looks at those of functions and types:
// a comment that begins with another name was left behind when its own was changed.
func TestCommentsBeginWithTheNameOfWhatTheyAreAbout(t *testing.T) {
	for _, path := range goFiles(t) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		check := func(name *ast.Ident, doc *ast.CommentGroup) {
			text := strings.TrimSpace(doc.Text())
			if text == "" || isTest(name.Name) {
				return
			}
			m := opening.FindStringSubmatch(text)
			// The functions behind the commands of testscript are named fooCommand for foo.
			if m == nil || m[1] != name.Name && !strings.EqualFold(m[1]+"Command", name.Name) {
				line, _, _ := strings.Cut(text, "\n")
				t.Errorf("%s: the comment of %s begins: %s", fset.Position(name.Pos()), name.Name, line)
			}
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				check(d.Name, d.Doc)
			case *ast.GenDecl:
				if len(d.Specs) == 1 && d.Tok == token.TYPE {
					check(d.Specs[0].(*ast.TypeSpec).Name, d.Doc)
				}
			}
		}
	}
}

// isTest reports whether name is one that go test runs: its comment says what it finds.
func isTest(name string) bool {
	for _, kind := range []string{"Test", "Benchmark", "Fuzz", "Example"} {
		if strings.HasPrefix(name, kind) {
			return true
		}
	}
	return false
}
