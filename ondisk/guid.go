package ondisk

import (
	"fmt"
	"strconv"
)

// GUID is what makes a snapshot known wherever it is sent: random, given when it is taken,
// and kept by those who receive it. 0 is none.
type GUID uint64

// String is 16 hexadecimal digits.
func (g GUID) String() string { return fmt.Sprintf("%016x", uint64(g)) }

// ParseGUID reads what String gives.
func ParseGUID(s string) (GUID, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("GUID %q: 16 hexadecimal digits are needed", s)
	}
	return GUID(n), nil
}

// MarshalText implements encoding.TextMarshaler, and so JSON.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *GUID) UnmarshalText(text []byte) (err error) {
	*g, err = ParseGUID(string(text))
	return err
}
