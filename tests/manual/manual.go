// Package manual reads what the manuals say of options and verbs, for tests that
// compare it with the programs.
package manual

import (
	"fmt"
	"os"
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
