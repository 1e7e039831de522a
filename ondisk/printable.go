package ondisk

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable is a name as people may be shown it: itself, or where it holds anything
// but printable characters (control characters, line ends, invalid UTF-8, what
// changes the direction of text) quoted and escaped as Go strings are. Whoever
// wrote a disk, a file or a message chose its names, and a terminal does what some
// characters say.
func Printable(name string) string {
	if IsPrintable(name) {
		return name
	}
	return strconv.Quote(name)
}

// IsPrintable reports whether Printable leaves a name as it is.
func IsPrintable(name string) bool {
	if !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// PrintableText is a text of several lines in which every character that is not
// printable is escaped, but line ends and tabs: as \uXXXX of JSON, or \xXX where it
// is no UTF-8. JSON stays JSON.
func PrintableText(text string) string {
	plain := func(r rune) bool { return r == '\n' || r == '\t' || strconv.IsPrint(r) }
	if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch high, low := utf16.EncodeRune(r); {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case plain(r):
			b.WriteRune(r)
		case high != utf8.RuneError:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}
