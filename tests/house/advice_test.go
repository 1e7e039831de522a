package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	// destroys is advice that ends something: a command in quotes of a message, or the
	// words for it.
	destroys = regexp.MustCompile("`(gvirstor )?(clear|delete|destroy|label -f|reclaim|repair --drop|repair --history|rollback|--drop)\\b" +
		"|(clear|delete|drop) (it|them) first|or (clear|delete) (it|them)\\b")
	// atStake is what such advice must say: what is lost by it, or that nothing is.
	atStake = regexp.MustCompile(`\b(lost|gives? up|given up|drops the others|no data|nothing on it is (wanted|of use)|when nothing on it is wanted|only zeros|send away)\b`)
)

// TestAdviceThatDestroysSaysWhatIsLost in each message of the programs.
func TestAdviceThatDestroysSaysWhatIsLost(t *testing.T) {
	seen := 0
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/tests/") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(l.Value)
			if err != nil || !destroys.MatchString(text) {
				return true
			}
			seen++
			if !atStake.MatchString(text) {
				t.Errorf("%s: %q does not say what is lost by it", set.Position(l.Pos()), text)
			}
			return true
		})
	}
	if seen < 5 {
		t.Errorf("%d pieces of such advice were found: is this where the messages are?", seen)
	}
}
