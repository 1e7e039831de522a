package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// fieldStyle is how printFields prints.
type fieldStyle struct {
	names  string // of the fields, with commas
	script bool   // without the names above
	exact  bool   // separated by tabs, not in columns
}

// componentRow is a component with the volume that it belongs to.
type componentRow struct {
	Volume string `json:"volume"`
	control.ComponentStatus
}

// componentRows are the components of volumes.
func componentRows(volumes []control.VolumeStatus) []componentRow {
	var rows []componentRow
	for i := range volumes {
		for _, c := range volumes[i].Components {
			rows = append(rows, componentRow{volumes[i].Name, c})
		}
	}
	return rows
}

// printFields prints a line for each row, with those of its members of JSON that f names.
func printFields[T any](w io.Writer, f fieldStyle, rows []T) error {
	names := strings.Split(f.names, ",")
	known := memberNames(reflect.TypeFor[T]())
	for _, name := range names {
		if !slices.Contains(known, name) {
			return failf("There is no field %s; those are: %s", ondisk.Printable(name), strings.Join(known, ", "))
		}
	}
	out, columns := w, (*tabwriter.Writer)(nil)
	if !f.exact {
		columns = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		out = columns
	}
	if !f.script {
		fmt.Fprintln(out, strings.Join(names, "\t"))
	}
	for _, row := range rows {
		b, err := json.Marshal(row)
		if err != nil {
			return failf("Can't print JSON: %w", err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(b, &members); err != nil {
			return failf("Can't print JSON: %w", err)
		}
		var cells []string
		for _, name := range names {
			cells = append(cells, fieldText(members[name]))
		}
		fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	if columns != nil {
		return columns.Flush()
	}
	return nil
}

// memberNames are the members of JSON of a struct, in order, those that may be left out
// included.
func memberNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, memberNames(f.Type)...)
		case f.IsExported() && name != "-" && name != "":
			names = append(names, name)
		}
	}
	return names
}

// fieldText is a member as a word: a text as it is, what is not there as -, and what has
// members of its own as JSON.
func fieldText(value json.RawMessage) string {
	var text string
	switch {
	case value == nil || string(value) == "null":
		return "-"
	case json.Unmarshal(value, &text) == nil:
		if text == "" {
			return "-"
		}
		return ondisk.Printable(text)
	}
	return string(value)
}
