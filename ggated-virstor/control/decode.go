package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// checker is a request that can tell whether it makes sense.
type checker interface{ check() error }

// decode reads the one JSON object of a request into q. Unknown members are
// refused: a verb's new option must not be lost on an old daemon.
func decode(r io.Reader, q any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(q); err != nil {
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return Errorf(Invalid, "request longer than %d bytes", tooLarge.Limit)
		case errors.Is(err, io.EOF):
			return Errorf(Invalid, "request without a body")
		}
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
