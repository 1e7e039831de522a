package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// printUsage prints how the verb at hand is used, or how verbs are found.
func (c *call) printUsage() {
	if cmd := findCommand(c.verb); cmd != nil {
		fmt.Fprintf(c.stderr, "usage: %s\n", cmd.usage())
		return
	}
	fmt.Fprintf(c.stderr, "usage: %s\n`%s help` lists the verbs\n", usageOfAll, program)
}

// usageOfAll is the usage of whatever verb.
const usageOfAll = program + " [--control socket] verb [option ...] [operand ...]"

// usage is the line of one verb.
func (cmd *command) usage() string {
	operands := cmd.operands
	if cmd.tellsResult() {
		letters, rest, _ := strings.Cut(operands, "]")
		operands = letters + "] [--json]" + rest
	}
	return strings.TrimRight(program+" "+cmd.name+" "+operands, " ")
}

// printVerbs prints a line for each verb.
func printVerbs(w io.Writer) {
	fmt.Fprintf(w, "usage: %s\n\n", usageOfAll)
	for _, cmd := range commands() {
		fmt.Fprintf(w, "    %-10s %s\n", cmd.name, cmd.brief)
	}
	fmt.Fprintf(w, "\n`%s help VERB` tells how a verb is used, and its options.\n", program)
}

// unknownCommand is the message for a verb that is none.
func unknownCommand(name string) string {
	text := fmt.Sprintf("Unknown command: %s.", name)
	if near := nearest(name); near != "" {
		text += fmt.Sprintf(" Did you mean '%s'?", near)
	}
	return text
}

// nearest is the verb that name is most probably meant to be, if any: by what other tools
// call it, by its beginning, or with a slip. It is never one that destroys: a slip of that
// leads nowhere.
func nearest(name string) string {
	best, at := "", len(name)/3+2 // more slips than that are another word
	for _, cmd := range commands() {
		known := slices.Contains(strings.Fields(cmd.also), name) || len(name) > 1 && strings.HasPrefix(cmd.name, name)
		if known && !cmd.destroys {
			return cmd.name
		}
		if d := distance(name, cmd.name); d < at {
			if best, at = cmd.name, d; cmd.destroys {
				best = ""
			}
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
