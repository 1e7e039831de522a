package main

import (
	"fmt"
	"io"
	"strings"
)

// printUsage prints a line for each verb, as geom(8) does.
func printUsage(w io.Writer) {
	prefix := "usage:"
	for _, cmd := range commands() {
		fmt.Fprintf(w, "%s %s\n", prefix, cmd.usage())
		prefix = "      "
	}
	fmt.Fprintf(w, "%s %s --control socket verb ...\n", prefix, program)
}

// usage is the line of one verb.
func (cmd *command) usage() string {
	return strings.TrimRight(program+" "+cmd.name+" "+cmd.operands, " ")
}

// unknownCommand is the message for a verb that is none.
func unknownCommand(name string) string {
	text := fmt.Sprintf("Unknown command: %s.", name)
	if near := nearest(name); near != "" {
		text += fmt.Sprintf(" Did you mean '%s'?", near)
	}
	return text
}

// nearest is the verb that name is most probably meant to be, if any.
func nearest(name string) string {
	best, at := "", len(name)/3+2 // more slips than that are another word
	for _, cmd := range commands() {
		if len(name) > 1 && strings.HasPrefix(cmd.name, name) {
			return cmd.name
		}
		if d := distance(name, cmd.name); d < at {
			best, at = cmd.name, d
		}
	}
	return best
}

// distance is the Levenshtein distance, in bytes, of a short and a shorter text.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
