package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/ggated-virstor/alert"
	"github.com/gvirstor/gvirstor/tests/manual"
)

func TestTheManualHasEveryOptionAndNoOther(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "option", page.Items("Fl"), flagsOf(t), func(f *pflag.Flag) string {
		if f.Shorthand != "" {
			return f.Shorthand
		}
		return "-" + f.Name
	})
	declared := flagsOf(t)
	for name := range page.Flags("ggated-virstor") {
		// gvirstor(8), which has options with letters, is spoken of as well.
		if len(name) > 1 && declared.Lookup(name[1:]) == nil {
			t.Errorf("option %s of the manual does not exist", name)
		}
	}
}

func TestTheManualHasEveryVariableOfTheAlertCommandAndNoOther(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	items := page.Items("Ev")
	for _, v := range alert.Environment(alert.Alert{}) {
		name, _, _ := strings.Cut(v, "=")
		if _, ok := items[name]; !ok {
			t.Errorf("%s is not in the manual", name)
		}
		delete(items, name)
	}
	for name := range items {
		t.Errorf("%s of the manual does not exist", name)
	}
}

func TestTheManualHasEveryKeyAndNoOther(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "key", page.Items("Cm"), keySet(flagsOf(t)), func(f *pflag.Flag) string { return f.Name })
}

func TestTheManualSaysWhichKeysAReloadApplies(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	begin, end := slices.Index(page, "keys take effect at once:"), slices.IndexFunc(page, func(l string) bool {
		return strings.HasPrefix(l, "All others need a restart")
	})
	if begin < 0 || end < begin {
		t.Fatal("the list is not there")
	}
	var said []string
	for _, line := range page[begin+1 : end] {
		said = append(said, strings.Fields(line)[1])
	}
	if !slices.Equal(said, liveKeys) {
		t.Errorf("the manual names %q, a reload applies %q", said, liveKeys)
	}
	for _, key := range liveKeys {
		if flagsOf(t).Lookup(key) == nil {
			t.Errorf("%s is no key", key)
		}
	}
}

func TestTheManualExplainsEveryMessageOfTheLog(t *testing.T) {
	page, err := manual.Read("../man/ggated-virstor.8")
	if err != nil {
		t.Fatal(err)
	}
	said, found := page.Diagnoses(), 0
	for _, dir := range []string{".", "../geomlib"} {
		for message, place := range messagesOf(t, dir) {
			if found++; !said[message] {
				t.Errorf("%s: %q is not in the manual", place, message)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d messages were found", found)
	}
}

// messagesOf are the literal messages that the sources below dir log for the
// administrator, and where.
func messagesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	messages := make(map[string]string)
	set := token.NewFileSet()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Info", "Warn", "Error"}, method.Sel.Name) {
				return true
			}
			logger := ""
			switch x := method.X.(type) {
			case *ast.Ident:
				logger = x.Name
			case *ast.SelectorExpr:
				logger = x.Sel.Name
			}
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok || !strings.EqualFold(logger, "log") {
				return true
			}
			message, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Error(err)
			}
			messages[message] = set.Position(call.Pos()).String()
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// compare compares the items of a manual with flags, which it calls by name.
func compare(t *testing.T, what string, items map[string]manual.Page, flags *pflag.FlagSet, name func(*pflag.Flag) string) {
	t.Helper()
	flags.VisitAll(func(f *pflag.Flag) {
		n := name(f)
		if _, ok := items[n]; !ok {
			t.Errorf("%s %s is not in the manual", what, n)
		}
		delete(items, n)
	})
	for n := range items {
		t.Errorf("%s %s of the manual does not exist", what, n)
	}
}
