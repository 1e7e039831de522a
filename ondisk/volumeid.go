package ondisk

import (
	"fmt"
	"strconv"
)

// VolumeID is the id of a volume where programs read it: eight hexadecimal digits, as
// people see it everywhere.
type VolumeID uint32

// MarshalText implements encoding.TextMarshaler, and so JSON.
func (id VolumeID) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(id)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *VolumeID) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil || len(text) != 8 {
		return fmt.Errorf("volume id %q: 8 hexadecimal digits are needed", text)
	}
	*id = VolumeID(n)
	return nil
}
