package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

var writeManual = flag.Bool("write", false, "write gvirstor-json(5) anew")

const jsonManual = "../man/gvirstor-json.5"

// form is what is printed as JSON, and by whom.
type form struct {
	by  string // in mdoc
	of  any
	say string // in mdoc
}

// forms are all that the programs print as JSON.
func forms() []form {
	return []form{
		{"Nm gvirstor Cm status , list", control.Status{}, "Volumes as they are."},
		{"Nm gvirstor Cm list Fl t Cm snapshot", snapshotList{}, ""},
		{"Nm gvirstor Cm diff", differences{}, ""},
		{"Nm gvirstor Cm send Fl n", sendPlan{}, ""},
		{"Nm gvirstor Cm scan", scanned{}, ""},
		{"Nm gvirstor Cm events", control.Event{}, "One object a line."},
		{"Nm gvirstor Cm history", deedList{}, ""},
		{"Nm gvirstor Cm clients", control.Clients{}, ""},
		{"Nm gvirstor Cm map", picture.Picture{}, ""},
		{"Nm gvirstor Cm check", check.Report{}, ""},
		{"Nm gvirstor Cm repair", planList{}, ""},
		{"Nm gvirstor Cm dump", dumpList{}, ""},
		{"Nm gvirstor Cm reserve", keptReserve{}, ""},
		{"Nm gvirstor Cm spare", spareList{}, ""},
		{"Nm gvirstor Cm alert", control.AlertTest{}, ""},
		{"all verbs that change something", result{}, "Printed in place of what people read, whether it was done or not; the exit status says that, too."},
		{"the status page of ggated-virstor", web.Overview{}, "For who asks for application/json."},
		{"the standard input of ggated-virstor's command of alerts", space.Alert{}, ""},
	}
}

// sources are the packages that the types of forms are of.
var sources = map[string]string{
	"main": ".", "control": "../ggated-virstor/control", "web": "../ggated-virstor/web", "space": "../ggated-virstor/space",
	"check": "../geomlib/virstor/check", "repair": "../geomlib/virstor/repair", "picture": "../geomlib/virstor/picture", "history": "../geomlib/history",
}

// comments are those of the fields of structs, by package, type and field.
func comments(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for name, dir := range sources {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				s, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, f := range s.Fields.List {
					text := f.Doc.Text() + f.Comment.Text()
					for _, n := range f.Names {
						all[name+"."+spec.Name.Name+"."+n.Name] = strings.Join(strings.Fields(text), " ")
					}
				}
				return true
			})
		}
	}
	return all
}

// words is a Go name in words: "volume status" of VolumeStatus.
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(rune(name[i-1])) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// titleOf is what the manual calls objects of a type.
func titleOf(t reflect.Type) string {
	pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]
	if pkg == "control" || pkg == "gvirstor" {
		return words(t.Name())
	}
	return words(t.Name()) + " of " + pkg
}

// manualWriter writes the part of the manual that comes from the code.
type manualWriter struct {
	t        *testing.T
	b        bytes.Buffer
	comments map[string]string
	waiting  []reflect.Type
	seen     map[reflect.Type]bool
}

// text writes a text as mdoc may have it.
func (m *manualWriter) text(s string) {
	s = strings.NewReplacer(`\`, `\e`, "…", "...").Replace(s)
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && len(line)+1+len(w) > 85 {
			m.line(line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + w)
	}
	if line != "" {
		m.line(line)
	}
}

func (m *manualWriter) line(s string) {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	// What ends a sentence ends the line.
	fmt.Fprintln(&m.b, strings.ReplaceAll(s, ". ", ".\n"))
}

var (
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
)

// kindOf is what values of a type are in JSON, in words.
func (m *manualWriter) kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[json.RawMessage]():
		return "anything"
	case t.Implements(textMarshaler) || reflect.PointerTo(t).Implements(textMarshaler):
		return "text"
	case t.Implements(jsonMarshaler):
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return m.kindOf(t.Elem())
	case reflect.Slice, reflect.Array:
		return "list of " + m.kindOf(t.Elem())
	case reflect.Map:
		return "by name " + m.kindOf(t.Elem())
	case reflect.Struct:
		if !m.seen[t] {
			m.seen[t] = true
			m.waiting = append(m.waiting, t)
		}
		return "object: " + titleOf(t)
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "number"
}

// members writes an item for each member of objects of a type.
func (m *manualWriter) members(t reflect.Type) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			m.members(f.Type)
			continue
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			m.t.Errorf("%s.%s has no name in JSON", t, f.Name)
		}
		kind := m.kindOf(f.Type)
		if strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") {
			kind += ", or absent"
		}
		fmt.Fprintf(&m.b, ".It Va %s Pq %s\n", name, kind)
		pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]
		if pkg == "gvirstor" {
			pkg = "main"
		}
		m.text(m.comments[pkg+"."+t.Name()+"."+f.Name])
	}
}

// object writes what objects of a type have.
func (m *manualWriter) object(t reflect.Type) {
	fmt.Fprintln(&m.b, `.Bl -tag -width indent`)
	m.members(t)
	fmt.Fprintln(&m.b, `.El`)
}

// jsonPage is the whole manual.
func jsonPage(t *testing.T) []byte {
	m := &manualWriter{t: t, comments: comments(t), seen: make(map[reflect.Type]bool)}
	m.b.WriteString(`.\" SPDX-License-Identifier: BSD-2-Clause
.\" Written by go test -run JSON ./gvirstor -write
.Dd November 29, 2026
.Dt GVIRSTOR-JSON 5
.Os
.Sh NAME
.Nm gvirstor-json
.Nd what the programs of gvirstor print as JSON
.Sh DESCRIPTION
Whatever
.Xr gvirstor 8
prints with
.Fl -json ,
and what
.Xr ggated-virstor 8
answers and tells, is one object, whose first member is
.Va schema :
`)
	fmt.Fprintf(&m.b, "the number %d.\n", control.Schema)
	m.b.WriteString(`It rises when a member goes or means something else.
Members may be added at any time: who reads them passes over those that it does not
know.
.Pp
Sizes are bytes, counts of chunks are chunks, times are of RFC 3339, and ids of volumes
are eight hexadecimal digits.
Characters that a terminal would obey are escaped as \eu and four digits.
A member that may be absent is so where it has nothing to say.
.Sh WHO PRINTS WHAT
`)
	for _, f := range forms() {
		macro := "." + f.by
		if !strings.HasPrefix(f.by, "Nm ") {
			macro = strings.ToUpper(f.by[:1]) + f.by[1:]
		}
		fmt.Fprintf(&m.b, ".Ss %s\n", strings.TrimPrefix(strings.ReplaceAll(macro, "Nm gvirstor Cm ", "gvirstor "), "."))
		m.text(f.say)
		of := reflect.TypeOf(f.of)
		m.seen[of] = true
		m.object(of)
	}
	fmt.Fprintln(&m.b, ".Sh OBJECTS IN THEM")
	for len(m.waiting) > 0 {
		of := m.waiting[0]
		m.waiting = m.waiting[1:]
		title := titleOf(of)
		fmt.Fprintf(&m.b, ".Ss %s\n", strings.ToUpper(title[:1])+title[1:])
		m.object(of)
	}
	m.b.WriteString(`.Sh SEE ALSO
.Xr ggated-virstor 8 ,
.Xr gvirstor 8
`)
	return m.b.Bytes()
}

func TestTheManualOfJSONIsWhatTheCodePrints(t *testing.T) {
	page := jsonPage(t)
	if *writeManual {
		if err := os.WriteFile(jsonManual, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	there, err := os.ReadFile(jsonManual)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(there, page) {
		t.Error("gvirstor-json(5) is not what the code prints: go test -run JSON ./gvirstor -write")
	}
}

// TestEveryVerbThatPrintsJSONIsInTheManualOfIt: by its name, or as one that changes.
func TestEveryVerbThatPrintsJSONIsInTheManualOfIt(t *testing.T) {
	var told []string
	for _, f := range forms() {
		told = append(told, strings.Fields(strings.ReplaceAll(f.by, ",", ""))...)
	}
	for _, cmd := range commands() {
		if declared(cmd).Lookup("json") == nil || cmd.tellsResult() {
			continue
		}
		found := false
		for _, word := range told {
			found = found || word == cmd.name
		}
		if !found {
			t.Errorf("no form of JSON is %s's", cmd.name)
		}
	}
}
