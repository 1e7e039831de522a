package control

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Errors of ExpandNumber.
var (
	ErrNumber      = errors.New("invalid argument")
	ErrNumberRange = errors.New("result too large")
)

// ExpandNumber reads a size as expand_number(3) of FreeBSD 15 does: a number,
// decimal, octal with a leading 0 or hexadecimal with 0x, one of the letters
// k m g t p e of either case for powers of 1024, and a b that means nothing.
// Up to FreeBSD 14 a text without digits was 0 and what followed the first
// letter was ignored; here neither is. Sizes are not negative: neither are
// these numbers. The result is at most math.MaxInt64.
func ExpandNumber(s string) (int64, error) {
	digits := strings.TrimLeft(s, " \t\n\v\f\r")
	digits = strings.TrimPrefix(digits, "+")
	num, suffix := splitNumber(digits)
	n, err := strconv.ParseUint(num, 0, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%q: %w", s, ErrNumberRange)
	}
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, ErrNumber)
	}
	shift := 0
	if suffix != "" {
		if i := strings.IndexByte("kmgtpe", suffix[0]|0x20); i >= 0 {
			shift = 10 * (i + 1)
			suffix = suffix[1:]
		}
	}
	if suffix != "" && suffix != "b" && suffix != "B" {
		return 0, fmt.Errorf("%q: %w", s, ErrNumber)
	}
	if bits.Len64(n)+shift > 64 || n<<shift > math.MaxInt64 {
		return 0, fmt.Errorf("%q: %w", s, ErrNumberRange)
	}
	return int64(n << shift), nil
}

// splitNumber parts the digits from what follows. In a hexadecimal number
// b and e are digits.
func splitNumber(s string) (num, suffix string) {
	isDigit := func(c byte) bool { return c >= '0' && c <= '9' }
	i := 0
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		isDigit = func(c byte) bool {
			return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
		}
		i = 2
	}
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return s[:i], s[i:]
}
