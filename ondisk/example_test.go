package ondisk_test

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// A volume of 1 GiB is laid out on two disks of 256 MiB.
func ExamplePlan() {
	layout, err := ondisk.Plan(ondisk.LabelRequest{
		Name: "mydata", VirtualSize: 1 << 30, ChunkSize: 4 << 20, ID: 0x1234abcd,
		Providers: []ondisk.LabelProvider{
			{Name: "ada4", Size: 256 << 20, SectorSize: 512},
			{Name: "ada6", Size: 256 << 20, SectorSize: 512},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("map of %d bytes\n", layout.MapBytes)
	for i, m := range layout.Metadata {
		fmt.Printf("component %d: %d chunks, %d of them reserved\n", i, m.ChunkCount, m.ChunkReserved)
	}
	// Output:
	// map of 2048 bytes
	// component 0: 63 chunks, 2 of them reserved
	// component 1: 63 chunks, 0 of them reserved
}

// A program finds out what a disk is from its last sector alone.
func ExampleDecodeMetadata() {
	sector := make([]byte, 512)
	m := ondisk.Metadata{
		Version: ondisk.Version, Name: "mydata", ID: 0x1234abcd, VirtualSize: 1 << 30, ChunkSize: 4 << 20,
		Count: 1, ProviderSize: 256 << 20, ChunkCount: 63, ChunkNext: 2, ChunkReserved: 2,
	}
	if err := m.Encode(sector); err != nil {
		fmt.Println(err)
		return
	}

	m, err := ondisk.DecodeMetadata(sector)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: component %d of %d, %d chunks of %d bytes\n", m.Name, m.No, m.Count, m.Entries(), m.ChunkSize)
	fmt.Println(m.Validate(256<<20, 512))
	// Output:
	// mydata: component 0 of 1, 256 chunks of 4194304 bytes
	// <nil>
}

// The allocation map says where each chunk of the virtual disk lies.
func ExampleDecodeEntry() {
	var b [ondisk.EntrySize]byte
	ondisk.Entry{Flags: ondisk.FlagAllocated, Component: 1, Chunk: 7}.Encode(b[:], ondisk.LittleEndian)

	order := ondisk.DetectOrder(b[:])
	e := ondisk.DecodeEntry(b[:], order)
	fmt.Println(order, e.Allocated(), e.Component, e.Chunk)
	// Output: little-endian true 1 7
}
