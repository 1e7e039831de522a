package geomlib

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Name is what a provider is called by whoever has it opened: the path of a file or of
// a device, a name below /dev with or without that prefix, or SCHEME://REST for
// providers that are neither. A Name is spelling alone: whether two names are those of
// one disk is Identity's to tell.
type Name string

const devPrefix = "/dev/"

// Bare is the name as GEOM has it, without /dev/.
func (n Name) Bare() string { return strings.TrimPrefix(string(n), devPrefix) }

// Same reports whether other is the same name, but for /dev/ before one of them.
func (n Name) Same(other string) bool { return n.Bare() == Name(other).Bare() }

// Scheme is the SCHEME of SCHEME://REST, as RFC 3986 (section 3.1) spells them; empty
// for files and devices. A file whose name looks like that is ./SCHEME://REST.
func (n Name) Scheme() string {
	scheme, _, found := strings.Cut(string(n), "://")
	if !found || scheme == "" {
		return ""
	}
	for i, c := range []byte(scheme) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return ""
		}
	}
	return scheme
}

// ErrUser is why a URI is refused that says a user.
var ErrUser = errors.New("a URI with a user's name, which may be a secret, is used by nothing here: leave out what stands before the @")

// CheckUser refuses a name with a scheme that says a user (ErrUser), in words without
// that: names of providers are shown to many.
func (n Name) CheckUser() error {
	if n.Scheme() == "" {
		return nil
	}
	scheme, rest, _ := strings.Cut(string(n), "://")
	end := strings.IndexAny(rest+"/", "/?#")
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		return nil
	}
	return fmt.Errorf("%s://%s: %w", scheme, rest[at+1:], ErrUser)
}

// Clean is the shortest equivalent of a path; a name with a scheme stays as it is.
func (n Name) Clean() string {
	if n.Scheme() != "" {
		return string(n)
	}
	return filepath.Clean(string(n))
}
