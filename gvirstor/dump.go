package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

func dumpCommand() *command {
	var json bool
	return &command{
		name:     "dump",
		operands: "[--json] prov ...",
		options:  func(f *options) { f.flag(&json, "", "json") },
		run:      func(_ context.Context, c *call) error { return c.dump(json) },
		about: `Shows the metadata that providers hold. A volume of metadata version 2 is
fenced: the kernel class refuses it (see stop). Of such a provider the last
lines say which member it is and of which moment: one whose generation is below
what others have settled missed something since, and is not served.

--json      as a list of objects, sizes in bytes`,
		example: "gvirstor dump ada4 ada6",
	}
}

func (c *call) dump(json bool) error {
	if len(c.operands) == 0 {
		return failf("Too few arguments.")
	}
	failed := false
	dumps := []dumpedMetadata{}
	for _, name := range c.operands {
		m, err := readMetadata(name)
		if err != nil {
			fmt.Fprintf(c.stderr, "Can't read metadata from %s: %s.\n", ondisk.Printable(name), providerText(name, err))
			failed = true
			continue
		}
		if json {
			dumps = append(dumps, dumped(name, m))
			continue
		}
		printMetadata(c.stdout, name, m)
	}
	if json {
		if err := printJSON(c.stdout, dumps); err != nil {
			return err
		}
	}
	if failed {
		return failf("Not fully done (error reading metadata).")
	}
	return nil
}

// readMetadata looks at a provider that may be in service.
func readMetadata(name string) (ondisk.Metadata, error) {
	p, err := geomlib.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
	if err != nil {
		return ondisk.Metadata{}, err
	}
	defer p.Close()
	return geomlib.ReadMetadata(p)
}

// printMetadata prints m as FreeBSD's tool does.
func printMetadata(w io.Writer, name string, m ondisk.Metadata) {
	provider := ondisk.Printable(m.Provider)
	if provider == "" {
		provider = "(not hardcoded)"
	}
	fmt.Fprintf(w, "Metadata on %s:\n", ondisk.Printable(name))
	items := []labelled{
		{"Magic string", ondisk.Magic},
		{"Metadata version", m.Version},
		{"Device name", ondisk.Printable(m.Name)},
		{"Device ID", m.ID},
		{"Provider index", m.No},
		{"Active providers", m.Count},
		{"Hardcoded provider", provider},
		{"Virtual size", fmt.Sprintf("%d MB", m.VirtualSize>>20)},
		{"Chunk size", fmt.Sprintf("%d kB", m.ChunkSize>>10)},
		{"Chunks on provider", m.ChunkCount},
		{"Chunks free", chunksFree(m)},
		{"Reserved chunks", m.ChunkReserved},
	}
	for _, item := range append(items, memberItems(m.Member)...) {
		fmt.Fprintf(w, "%22s: %v\n", item.label, item.value)
	}
	fmt.Fprintln(w)
}

// labelled is a line of what dump prints.
type labelled struct {
	label string
	value any
}

// memberItems are what FreeBSD's tool does not know: which member of its volume the
// provider is, and of which moment.
func memberItems(b ondisk.MemberBlock) []labelled {
	if !b.Exists() {
		return nil
	}
	return []labelled{
		{"Member ID", memberID(b)},
		{"Generation", b.Generation},
		{"Settled generation", b.Settled},
		{"Generation began", began(b)},
		{"Last known name", ondisk.Printable(b.LastName)},
	}
}

func memberID(b ondisk.MemberBlock) string { return fmt.Sprintf("%016x", b.ID) }

// began is when the generation began, by the clock of the host that wrote it.
func began(b ondisk.MemberBlock) string { return time.Unix(b.Began, 0).UTC().Format(time.RFC3339) }

// chunksFree is what the metadata says, which while the volume is fenced is
// not the truth but the state of the last hand-back.
func chunksFree(m ondisk.Metadata) uint32 {
	if m.ChunkNext > m.ChunkCount {
		return 0
	}
	return m.ChunkCount - m.ChunkNext
}

// dumpedMetadata is the metadata of one provider in JSON.
type dumpedMetadata struct {
	Name           string `json:"name"` // of the provider, as it was given
	Version        uint32 `json:"version"`
	Volume         string `json:"volume"`
	ID             uint32 `json:"id"`
	Index          uint16 `json:"index"`
	Count          uint16 `json:"count"`
	Hardcoded      string `json:"hardcoded_provider"`
	ProviderSize   uint64 `json:"provider_size"`
	VirtualSize    uint64 `json:"virtual_size"`
	ChunkSize      uint32 `json:"chunk_size"`
	ChunkCount     uint32 `json:"chunk_count"`
	ChunkNext      uint32 `json:"chunk_next"`
	ChunksReserved uint16 `json:"chunks_reserved"`
	ChunksFree     uint32 `json:"chunks_free"`
	Flags          uint16 `json:"flags"`

	Member *dumpedMember `json:"member,omitempty"` // nil: there is no block
}

// dumpedMember is a member block in JSON.
type dumpedMember struct {
	ID         string `json:"id"` // 16 hexadecimal digits
	Generation uint64 `json:"generation"`
	Settled    uint64 `json:"settled"`
	Began      string `json:"began"` // RFC 3339
	LastName   string `json:"last_name"`
}

func dumped(name string, m ondisk.Metadata) dumpedMetadata {
	d := dumpedMetadata{
		Name: name, Version: m.Version, Volume: m.Name, ID: m.ID, Index: m.No, Count: m.Count,
		Hardcoded: m.Provider, ProviderSize: m.ProviderSize, VirtualSize: m.VirtualSize, ChunkSize: m.ChunkSize,
		ChunkCount: m.ChunkCount, ChunkNext: m.ChunkNext, ChunksReserved: m.ChunkReserved,
		ChunksFree: chunksFree(m), Flags: m.Flags,
	}
	if b := m.Member; b.Exists() {
		d.Member = &dumpedMember{ID: memberID(b), Generation: b.Generation, Settled: b.Settled, Began: began(b), LastName: b.LastName}
	}
	return d
}
