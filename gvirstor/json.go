package main

import (
	"encoding/json"
	"io"
)

// printJSON prints a, indented.
func printJSON(w io.Writer, a any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(a); err != nil {
		return failf("Can't print JSON: %w", err)
	}
	return nil
}
