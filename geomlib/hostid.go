package geomlib

import (
	"encoding/hex"
	"strings"
)

// HostID is the random number by which this installation of the system is known; zeros
// where it has none.
func HostID() (id [16]byte) {
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(hostUUID()), "-", ""))
	if err != nil || len(raw) != len(id) {
		return id
	}
	return [16]byte(raw)
}
