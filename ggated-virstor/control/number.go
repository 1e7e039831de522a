package control

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Errors of ExpandNumber, in the words of strerror(3).
var (
	ErrNumber      = errors.New("Invalid argument")
	ErrNumberRange = errors.New("Result too large")
)

// ExpandNumber reads a size as expand_number(3) does: an unsigned number, decimal,
// octal with a leading 0 or hexadecimal with 0x, and at most one of the
// suffixes b k m g t p e of either case, in powers of 1024. The result is
// at most math.MaxInt64.
func ExpandNumber(s string) (int64, error) {
	digits := strings.TrimLeft(s, " \t\n\v\f\r")
	digits = strings.TrimPrefix(digits, "+")
	num, suffix := splitNumber(digits)
	n, err := strconv.ParseUint(num, 0, 64)
	if err != nil || strings.Contains(num, "_") {
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("%q: %w", s, ErrNumberRange)
		}
		return 0, fmt.Errorf("%q: %w", s, ErrNumber)
	}
	shift := 0
	if suffix != "" {
		i := strings.IndexByte("bkmgtpe", suffix[0]|0x20)
		if i < 0 || len(suffix) > 1 {
			return 0, fmt.Errorf("%q: %w", s, ErrNumber)
		}
		shift = 10 * i
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
