// Package manual reads what the manuals say of options and verbs, for tests that
// compare it with the programs.
package manual

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Page is a manual in mdoc(7), line by line.
type Page []string

// Read reads the manual at path.
func Read(path string) (Page, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a manual: %w", err)
	}
	return strings.Split(string(text), "\n"), nil
}

// Items are the names that list items with the macro (Fl, Cm) have, with the lines
// up to the next such item or section.
func (p Page) Items(macro string) map[string]Page {
	items := make(map[string]Page)
	var open []string
	for i, line := range p {
		if strings.HasPrefix(line, ".Sh") || strings.HasPrefix(line, ".Ss") {
			open = nil
		}
		if rest, ok := strings.CutPrefix(line, ".It "+macro+" "); ok {
			name := strings.Fields(rest)[0]
			// Items that follow each other share what is said of the last.
			if i == 0 || !strings.HasPrefix(p[i-1], ".It "+macro+" ") {
				open = nil
			}
			open = append(open, name)
			if items[name] == nil {
				items[name] = Page{}
			}
		}
		for _, name := range open {
			items[name] = append(items[name], line)
		}
	}
	return items
}

// Flags are the options that p speaks of, letters alone and long names with one
// dash, as mdoc has them. Lines about other programs do not count.
func (p Page) Flags(program string) map[string]bool {
	flags := make(map[string]bool)
	for _, line := range p {
		if !strings.HasPrefix(line, ".") || foreign(line, program) {
			continue
		}
		words := strings.Fields(line)
		for i, w := range words[:len(words)-1] {
			if w != "Fl" && w != ".Fl" {
				continue
			}
			name := words[i+1]
			if strings.HasPrefix(name, "-") {
				flags[name] = true
				continue
			}
			for _, letter := range name {
				flags[string(letter)] = true
			}
		}
	}
	return flags
}

// Diagnoses are the messages that the section DIAGNOSTICS explains.
func (p Page) Diagnoses() map[string]bool {
	said := make(map[string]bool)
	in := false
	for _, line := range p {
		if strings.HasPrefix(line, ".Sh ") {
			in = line == ".Sh DIAGNOSTICS"
		}
		if message, ok := strings.CutPrefix(line, ".It "); ok && in {
			said[message] = true
		}
	}
	return said
}

// Messages are the literals that functions and methods of these names are first
// given in the sources below dir, tests apart, and where. on, if not nil, tells
// whether the value that a method is called on counts, by its last name.
func Messages(dir string, functions []string, on func(value string) bool) (map[string]string, error) {
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
			value, function := calledBy(call.Fun)
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING || !slices.Contains(functions, function) || on != nil && !on(value) {
				return true
			}
			if message, err := strconv.Unquote(literal.Value); err == nil {
				messages[message] = set.Position(call.Pos()).String()
			}
			return true
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the messages of %s: %w", dir, err)
	}
	return messages, nil
}

// calledBy are the names of a function, and of the value that it is a method of.
func calledBy(e ast.Expr) (value, function string) {
	switch f := e.(type) {
	case *ast.Ident:
		return "", f.Name
	case *ast.SelectorExpr:
		_, value = calledBy(f.X)
		return value, f.Sel.Name
	}
	return "", ""
}

// foreign tells whether line is about another program.
func foreign(line, program string) bool {
	words := strings.Fields(line)
	for i, w := range words[:len(words)-1] {
		if (w == "Nm" || w == ".Nm" || w == "Xr") && words[i+1] != program &&
			words[i+1][0] >= 'a' && words[i+1][0] <= 'z' {
			return true
		}
	}
	return false
}
