package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
)

// checker is a request that can tell whether it makes sense.
type checker interface{ check() error }

// decode reads the one JSON object of a request into q. Unknown members are
// refused: a verb's new option must not be lost on an old daemon.
func decode(r io.Reader, q any) error {
	body, err := io.ReadAll(r)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return Errorf(Invalid, "request longer than %d bytes", tooLarge.Limit)
	case err != nil:
		return Errorf(Invalid, "request: %v", err)
	}
	if err := checkUsers(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err = d.Decode(q)
	switch {
	case errors.Is(err, io.EOF):
		return Errorf(Invalid, "request without a body")
	case err != nil:
		return Errorf(Invalid, "request: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(Invalid, "request with more than one JSON object")
	}
	if c, ok := q.(checker); ok {
		return c.check()
	}
	return nil
}

// checkUsers refuses a request that says a user in a URI, wherever that stands: names of
// providers are shown to many, and that may be a secret.
func checkUsers(body []byte) error {
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		t, err := d.Token()
		if err != nil {
			return nil // the end, or what decode says more of
		}
		if s, ok := t.(string); ok {
			if err := geomlib.Name(s).CheckUser(); err != nil {
				return Errorf(Invalid, "request: %v", err)
			}
		}
	}
}

func checkProviders(names []string) error {
	if len(names) == 0 {
		return Errorf(Invalid, "request names no providers")
	}
	if len(names) > maxProviders {
		return Errorf(Invalid, "request names %d providers, at most %d are possible", len(names), maxProviders)
	}
	for _, n := range names {
		if n == "" || strings.ContainsRune(n, 0) {
			return Errorf(Invalid, "bad provider name %q", n)
		}
	}
	return nil
}

func checkSectorSize(n int) error {
	if n != 0 && (n < 512 || n > 64<<10 || n&(n-1) != 0) {
		return Errorf(Invalid, "bad sector size %d: not a power of two from 512 to 65536", n)
	}
	return nil
}
