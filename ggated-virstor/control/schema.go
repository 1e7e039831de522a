package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Schema is the version of all JSON that the programs print or answer; it rises when a
// member goes, or means something else. gvirstor-json(5) describes it.
const Schema = 1

// errNoObject: only objects can say which schema they are of.
var errNoObject = errors.New("not an object of JSON")

// MarshalJSON is a, whose JSON is an object, with the member "schema" before its own.
func MarshalJSON(a any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(a); err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	rest, ok := bytes.CutPrefix(text, []byte("{"))
	if !ok {
		return nil, fmt.Errorf("%T: %w", a, errNoObject)
	}
	separator := ","
	if bytes.Equal(rest, []byte("}")) {
		separator = ""
	}
	return fmt.Appendf(nil, `{"schema":%d%s%s`, Schema, separator, rest), nil
}
