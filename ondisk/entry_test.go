package ondisk_test

import (
	"bytes"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func TestEntriesLieInTheMapsByteOrder(t *testing.T) {
	e := ondisk.Entry{Flags: ondisk.FlagAllocated, Component: 0x0203, Chunk: 0x04050607}
	tests := []struct {
		order ondisk.Order
		want  []byte
	}{
		{ondisk.LittleEndian, []byte{1, 0, 3, 2, 7, 6, 5, 4}},
		{ondisk.OrderUnknown, []byte{1, 0, 3, 2, 7, 6, 5, 4}},
		{ondisk.BigEndian, []byte{0, 1, 2, 3, 4, 5, 6, 7}},
	}
	for _, tt := range tests {
		got := make([]byte, ondisk.EntrySize)
		e.Encode(got, tt.order)
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%v: %x, want %x", tt.order, got, tt.want)
		}
		if back := ondisk.DecodeEntry(tt.want, tt.order); back != e {
			t.Errorf("%v: %+v, want %+v", tt.order, back, e)
		}
	}
}

func TestDetectOrderAsksTheFirstAllocatedEntry(t *testing.T) {
	free := make([]byte, ondisk.EntrySize)
	little := []byte{1, 0, 0, 0, 2, 0, 0, 0}
	big := []byte{0, 1, 0, 0, 0, 0, 0, 2}
	both := []byte{1, 1, 0, 0, 0, 0, 0, 2}
	freed := []byte{0, 0, 1, 0, 9, 0, 0, 0}
	tests := []struct {
		name string
		m    [][]byte
		want ondisk.Order
	}{
		{"empty", nil, ondisk.OrderUnknown},
		{"nothing allocated", [][]byte{free, freed, free}, ondisk.OrderUnknown},
		{"little", [][]byte{free, freed, little}, ondisk.LittleEndian},
		{"big", [][]byte{free, big}, ondisk.BigEndian},
		{"contradictory", [][]byte{big, little}, ondisk.BigEndian},
		{"ambiguous first", [][]byte{both, little}, ondisk.LittleEndian},
		{"ambiguous, then big", [][]byte{both, big}, ondisk.BigEndian},
		{"half an entry", [][]byte{free, little[:4]}, ondisk.OrderUnknown},
	}
	for _, tt := range tests {
		if got := ondisk.DetectOrder(bytes.Join(tt.m, nil)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestEntryCodecAllocatesNothing(t *testing.T) {
	b := make([]byte, ondisk.EntrySize)
	var sum uint32
	allocs := testing.AllocsPerRun(100, func() {
		for _, o := range []ondisk.Order{ondisk.LittleEndian, ondisk.BigEndian} {
			ondisk.Entry{Flags: 1, Component: 2, Chunk: 3}.Encode(b, o)
			sum += ondisk.DecodeEntry(b, o).Chunk
		}
	})
	if allocs != 0 || sum == 0 {
		t.Errorf("%v allocations, sum %d", allocs, sum)
	}
}
