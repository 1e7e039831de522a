package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// notServed is the state of a volume that cannot be served.
const notServed = "not served"

// statusRow is a geom or a provider in the table of status.
type statusRow struct {
	name, state string
	components  []string
}

// printStatus prints the table as geom(8) does: name and state right-aligned,
// one line a component.
func printStatus(w io.Writer, st control.Status, o *statusOptions) {
	if o.exact {
		printExactStatus(w, st.Volumes)
		return
	}
	rows := statusRows(st, o)
	if len(rows) == 0 {
		return
	}
	nameWidth, stateWidth := len("Name"), len("Status")
	if o.script {
		nameWidth, stateWidth = 0, 0
	}
	for _, r := range rows {
		nameWidth = max(nameWidth, utf8.RuneCountInString(r.name)) // as Printf counts
		stateWidth = max(stateWidth, utf8.RuneCountInString(r.state))
	}
	line := func(name, state, component string) {
		fmt.Fprintf(w, "%*s  %*s  %s\n", nameWidth, name, stateWidth, state, component)
	}
	if !o.script {
		line("Name", "Status", "Components")
	}
	for _, r := range rows {
		for i, component := range r.components {
			if i > 0 && !o.script {
				line("", "", component)
				continue
			}
			line(r.name, r.state, component)
		}
	}
}

// statusRows are the rows of the table, each with one component at least.
func statusRows(st control.Status, o *statusOptions) []statusRow {
	var rows []statusRow
	for i := range st.Volumes {
		v := &st.Volumes[i]
		names := v.Nodes()
		for _, f := range v.Volumes {
			names = append(names, f.Nodes()...)
		}
		if o.geoms {
			names = []string{v.Name}
		}
		for _, name := range names {
			r := statusRow{name: name, state: v.State}
			for _, c := range v.Components {
				r.components = append(r.components, componentText(c))
			}
			rows = append(rows, r)
		}
	}
	if o.all && o.geoms {
		for _, p := range st.Problems {
			if p.Volume != "" {
				rows = append(rows, statusRow{p.Volume, notServed, printable(p.Providers)})
			}
		}
	}
	for i := range rows {
		if len(rows[i].components) == 0 {
			rows[i].components = []string{"N/A"}
		}
	}
	return rows
}

// componentText is a component's name with its state, if that is worth a word.
func componentText(c control.ComponentStatus) string {
	if len(c.State) == 0 {
		return ondisk.Printable(c.Name)
	}
	return ondisk.Printable(c.Name) + " (" + conditionsText(c.State, ", ") + ")"
}

func conditionsText(conditions []control.Condition, separator string) string {
	var words []string
	for _, c := range conditions {
		words = append(words, string(c))
	}
	return strings.Join(words, separator)
}

// printExactStatus is status -p.
func printExactStatus(w io.Writer, volumes []control.VolumeStatus) {
	for i := range volumes {
		v := &volumes[i]
		conditions := "-"
		if len(v.Conditions) > 0 {
			conditions = conditionsText(v.Conditions, ",")
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", v.Name, v.Nodes()[0],
			v.VirtualSize, v.PhysicalChunks*v.ChunkSize, v.AllocatedChunks*v.ChunkSize, v.FreeChunks*v.ChunkSize,
			v.Held.Bytes, v.FreePercent(), conditions)
	}
}

// printable are names as people may be shown them.
func printable(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, ondisk.Printable(name))
	}
	return out
}

// printActions tells what volumes need a hand with, and what to type.
func printActions(w io.Writer, volumes []control.VolumeStatus) {
	for i := range volumes {
		for _, a := range volumes[i].Actions() {
			fmt.Fprintf(w, "action: %s: %s\n", volumes[i].Name, a)
		}
	}
}

// warnProblems tells what cannot be served, and what to do.
func (c *call) warnProblems(problems []control.Problem) {
	for _, p := range problems {
		c.warn(problemText(p))
	}
}

func problemText(p control.Problem) string {
	text := p.Reason
	if p.Volume != "" {
		text = p.Volume + ": " + text
	}
	if p.Remedy != "" {
		text += "; " + p.Remedy
	}
	return text
}
