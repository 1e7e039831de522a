package ondisk

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const devPrefix = "/dev/"

// checkName refuses what cannot be the name of a node below /dev/virstor.
func checkName(name string) error {
	if !fitsField(name) {
		return fmt.Errorf("%w: %q is longer than %d bytes or has a NUL", ErrName, name, nameField)
	}
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("%w: %q has a control character", ErrName, name)
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%w: %q is no name for a device", ErrName, name)
		}
	}
	return nil
}

// checkNewName refuses, beside that, what only old volumes may be called: a
// name that fills its field, and characters that devfs(5) escapes or that
// scripts reading status would stumble over.
func checkNewName(name string) error {
	if len(name) > MaxNameLen {
		return fmt.Errorf("%w: %q has %d characters, at most %d are possible", ErrName, name, len(name), MaxNameLen)
	}
	if i := strings.IndexAny(name, "/ \"'\\"); i >= 0 {
		return fmt.Errorf("%w: %q has the character %q", ErrName, name, name[i])
	}
	// What is not printable acts on the terminal that shows it, and what is no text
	// cannot be the name of an NBD export (doc/proto.md of NetworkBlockDevice/nbd).
	for i, r := range name {
		if _, width := utf8.DecodeRuneInString(name[i:]); r == utf8.RuneError && width == 1 {
			return fmt.Errorf("%w: %q is not UTF-8", ErrName, name)
		}
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: %q has the character %q, which cannot be printed", ErrName, name, r)
		}
	}
	return checkName(name)
}

// CheckNewName tells whether a volume may be given that name: 1 to MaxNameLen bytes
// of printable UTF-8, no slash, blank, quote or backslash, not "." or "..". Otherwise
// the error is ErrName, with the reason.
func CheckNewName(name string) error { return checkNewName(name) }

// hardcodedName is the name of a provider as the metadata has it.
func hardcodedName(provider string) (string, error) {
	name := strings.TrimPrefix(provider, devPrefix)
	if name == "" || len(name) > MaxNameLen || !fitsField(name) {
		return "", fmt.Errorf("%w: %q cannot be hardcoded, only names of 1 to %d characters can", ErrProviderName, name, MaxNameLen)
	}
	return name, nil
}
