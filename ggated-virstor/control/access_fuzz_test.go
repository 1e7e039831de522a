package control

import (
	"bytes"
	"net/http"
	"slices"
	"testing"
)

// FuzzAccessOf: what a request opens stands in it, and is what its handler would
// be given.
func FuzzAccessOf(f *testing.F) {
	f.Add("/v1/serve", []byte(`{"providers":["a"]}`))
	f.Add("/v1/volumes/vol/add", []byte(`{"providers":["a","b"],"sector_size":512}`))
	f.Add("/v1/volumes/virstor%2Fvol/spare", []byte(`{"providers":["a"],"remove":true}`))
	f.Add("/v1/volumes/vol/jobs", []byte(`{"kind":"replace","args":{"target":"t"}}`))
	f.Add("/v1/release", []byte(`{"providers":["a"]}`))
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		a := AccessOf(http.MethodPost, path, body)
		for _, name := range slices.Concat(a.Open, a.Keep) {
			if name == "" {
				t.Fatalf("%q %q opens a provider without a name", path, body)
			}
		}
		if len(a.Open) > 0 && !bytes.Contains(body, []byte(`"`)) {
			t.Fatalf("%q %q opens %q", path, body, a.Open)
		}
		if b := AccessOf(http.MethodGet, path, body); len(b.Open)+len(b.Keep)+len(b.Drop) > 0 {
			t.Fatalf("a question about %q opens %+v", path, b)
		}
	})
}
