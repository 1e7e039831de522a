package nbdclient

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// replies is a connection on which a call is in flight, and the server sends that and ends.
func replies(k *call, b []byte) *Conn {
	k.inFlight, k.done = true, make(chan struct{}, 1)
	return &Conn{structured: true, allocation: true, calls: []*call{k}, in: bufio.NewReader(bytes.NewReader(b))}
}

// dataChunk appends a chunk of n bytes of data.
func dataChunk(b []byte, flags uint16, off, n int) []byte {
	b = proto.Chunk{Flags: flags, Type: proto.ReplyOffsetData, Length: uint64(8 + n)}.Append(b)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return append(b, bytes.Repeat([]byte{byte(off>>12) + 1}, n)...)
}

// TestEachByteOfAReadIsAnsweredOnce, in any order: what is not would be what the buffer held
// before, which may be somebody else's.
func TestEachByteOfAReadIsAnsweredOnce(t *testing.T) {
	const done, page = proto.ReplyFlagDone, 4096
	for what, tt := range map[string]struct {
		chunks [][2]int // in pages
		good   bool
	}{
		"in one":                   {[][2]int{{0, 4}}, true},
		"in order":                 {[][2]int{{0, 1}, {1, 2}, {3, 1}}, true},
		"in another order":         {[][2]int{{3, 1}, {0, 1}, {2, 1}, {1, 1}}, true},
		"twice instead of another": {[][2]int{{0, 2}, {0, 2}}, false},
		"overlapping":              {[][2]int{{1, 2}, {2, 2}}, false},
		"overlapping from before":  {[][2]int{{2, 2}, {1, 2}}, false},
		"within another":           {[][2]int{{0, 3}, {1, 1}}, false},
		"around another":           {[][2]int{{1, 1}, {0, 3}}, false},
		"not all":                  {[][2]int{{0, 1}, {2, 2}}, false},
	} {
		var b []byte
		for i, c := range tt.chunks {
			flags := uint16(0)
			if i == len(tt.chunks)-1 {
				flags = done
			}
			b = dataChunk(b, flags, c[0]*page, c[1]*page)
		}
		k := &call{data: make([]byte, 4*page)}
		c := replies(k, b)
		var err error
		for range tt.chunks {
			if err == nil {
				err = c.reply()
			}
		}
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", what, err)
		}
		if tt.good && (len(k.done) != 1 || bytes.IndexByte(k.data, 0) >= 0) {
			t.Errorf("%s: not all is there", what)
		}
	}
}

// TestAContextHasOneChunkOfBlockStatus: a server that sends them without end is told from one
// that answers.
func TestAContextHasOneChunkOfBlockStatus(t *testing.T) {
	var b []byte
	for range 2 {
		b = proto.Chunk{Type: proto.ReplyBlockStatus, Length: 12}.Append(b)
		b = append(b, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0) // the context, 4096 bytes, data
	}
	c := replies(&call{}, b)
	if err := c.reply(); err != nil {
		t.Fatal(err)
	}
	if err := c.reply(); err == nil {
		t.Error("a second one is taken")
	}
}
