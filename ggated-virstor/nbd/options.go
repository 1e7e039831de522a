package nbd

import (
	"encoding/binary"
	"errors"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// errOption means that the data of an option is not what the option says.
var errOption = errors.New("malformed option")

// cutString takes a string with its 32-bit length off the front of b.
func cutString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, errOption
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if n > proto.MaxString || int(n) > len(b) {
		return "", nil, errOption
	}
	return string(b[:n]), b[n:], nil
}

// parseGo decodes the data of INFO and GO: an export's name and the information
// types that the client asks for.
func parseGo(b []byte) (name string, infos []uint16, err error) {
	name, b, err = cutString(b)
	if err != nil {
		return "", nil, err
	}
	if len(b) < 2 {
		return "", nil, errOption
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if len(b) != 2*n {
		return "", nil, errOption
	}
	for ; len(b) > 0; b = b[2:] {
		infos = append(infos, binary.BigEndian.Uint16(b))
	}
	return name, infos, nil
}

// parseMeta decodes the data of LIST_META_CONTEXT and SET_META_CONTEXT: an
// export's name and queries.
func parseMeta(b []byte) (name string, queries []string, err error) {
	name, b, err = cutString(b)
	if err != nil {
		return "", nil, err
	}
	if len(b) < 4 {
		return "", nil, errOption
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(n)*4 > uint64(len(b)) { // each has at least its length
		return "", nil, errOption
	}
	for range n {
		var q string
		if q, b, err = cutString(b); err != nil {
			return "", nil, err
		}
		queries = append(queries, q)
	}
	if len(b) != 0 {
		return "", nil, errOption
	}
	return name, queries, nil
}
