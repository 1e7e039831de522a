package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

func dumpCommand() *command {
	var json bool
	return &command{
		name:     "dump",
		brief:    "Shows the metadata of providers",
		also:     "info inspect pvdisplay",
		operands: "[--json] prov ...",
		options:  func(f *options) { f.flag(&json, "", "json") },
		run:      func(_ context.Context, c *call) error { return c.dump(json) },
		about: `Shows the metadata that providers hold. A volume of metadata version 2 is
fenced: the kernel class refuses it (see stop). Of such a provider the last
lines say which member it is and of which moment: one whose generation is below
what others have settled missed something since, and is not served. Of
component 0 they also say what its record does: whether the volume was closed
in order or is being handed back, which operation or job is unfinished, and
which members take no writes.

--json      as an object, sizes in bytes`,
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
		l, err := readLabel(c.registry, name)
		if err != nil {
			fmt.Fprintf(c.stderr, "Can't read metadata from %s: %s.\n", ondisk.Printable(name), providerText(name, err))
			failed = true
		}
		switch {
		case l.Metadata == ondisk.Metadata{}: // else what is damaged, or half of it, is shown
		case json:
			dumps = append(dumps, dumped(name, l))
		default:
			printLabel(c.stdout, name, l)
		}
	}
	if json {
		if err := printJSON(c.stdout, dumpList{dumps}); err != nil {
			return err
		}
	}
	if failed {
		return failf("Not fully done (error reading metadata).")
	}
	return nil
}

// label is what a provider says of the volume that it is of.
type label struct {
	ondisk.Metadata
	record *ondisk.Extension   // component 0's; nil where there is none
	lease  *virstor.LeaseOwner // likewise
}

// readLabel looks at a provider that may be in service. With ondisk.ErrMemberBlock comes
// what a damaged one says, and without the record the rest.
func readLabel(registry geomlib.Registry, name string) (label, error) {
	p, err := registry.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
	if err != nil {
		return label{}, err
	}
	defer p.Close()
	m, err := geomlib.ReadMetadata(p)
	if err != nil {
		return label{Metadata: m}, err
	}
	rec, found, err := virstor.Record(p, m)
	l := label{Metadata: m}
	if err != nil {
		return l, err
	}
	if found {
		l.record = &rec
	}
	l.lease, err = virstor.LeaseOn(p, m)
	return l, err
}

// printLabel prints the metadata as FreeBSD's tool does, and then what that does not know.
func printLabel(w io.Writer, name string, l label) {
	m := l.Metadata
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
	items = append(items, memberItems(m.Member)...)
	items = append(items, recordItems(l.record)...)
	if l.lease != nil {
		items = append(items, labelled{"Lease", leaseText(*l.lease)})
	}
	for _, item := range items {
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

// recordItems are what component 0's record says.
func recordItems(r *ondisk.Extension) []labelled {
	if r == nil {
		return nil
	}
	items := []labelled{{"Closed in order", yesOrNo(r.Clean)}}
	if r.HandBack {
		items = append(items, labelled{"Being handed back", "yes"})
	}
	if r.Intent.Kind != ondisk.IntentNone {
		items = append(items, labelled{"Operation under way", intentText(r.Intent)})
	}
	if r.Task.Kind != ondisk.TaskNone {
		items = append(items, labelled{"Unfinished job", r.Task.Kind})
	}
	if r.Directory.Exists() {
		items = append(items, labelled{"Directory of the pool", r.Directory})
	}
	for _, f := range r.Failed {
		if f.ID != 0 {
			items = append(items, labelled{"Takes no writes", fmt.Sprintf("member %s since generation %d", hexID(f.ID), f.Generation)})
		}
	}
	return items
}

// leaseText says which host has a lease, or had it.
func leaseText(l virstor.LeaseOwner) string {
	text := fmt.Sprintf("of %v since %s", l, l.Since.UTC().Format(time.RFC3339))
	if l.Released {
		text += ", released"
	}
	return text
}

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// intentText is an operation under way with whom it concerns.
func intentText(i ondisk.Intent) string {
	text := i.Kind.String()
	if i.Kind == ondisk.IntentNewID {
		text += fmt.Sprintf(" in the place of %d", i.Arg[0])
	}
	if i.Kind == ondisk.IntentRollback {
		text += fmt.Sprintf(" to snapshot %d", i.Arg[0])
	}
	if i.Leaves != 0 {
		text += fmt.Sprintf(", member %s leaves", hexID(i.Leaves))
	}
	if i.Moves != 0 && i.Moves != i.Leaves {
		text += fmt.Sprintf(", member %s takes its index", hexID(i.Moves))
	}
	return text
}

func memberID(b ondisk.MemberBlock) string { return hexID(b.ID) }

func hexID(id uint64) string { return fmt.Sprintf("%016x", id) }

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

// dumpList is what dump shows, in JSON.
type dumpList struct {
	Providers []dumpedMetadata `json:"providers"` // that could be read
}

// dumpedMetadata is the metadata of one provider in JSON.
type dumpedMetadata struct {
	Name           string          `json:"name"` // of the provider, as it was given
	Version        uint32          `json:"version"`
	Volume         string          `json:"volume"`
	ID             ondisk.VolumeID `json:"id"`
	Index          uint16          `json:"index"`
	Count          uint16          `json:"count"`
	Hardcoded      string          `json:"hardcoded_provider"`
	ProviderSize   uint64          `json:"provider_size"`
	VirtualSize    uint64          `json:"virtual_size"`
	ChunkSize      uint32          `json:"chunk_size"`
	ChunkCount     uint32          `json:"chunk_count"`
	ChunkNext      uint32          `json:"chunk_next"`
	ChunksReserved uint16          `json:"chunks_reserved"`
	ChunksFree     uint32          `json:"chunks_free"`
	Flags          uint16          `json:"flags"`

	Member *dumpedMember `json:"member,omitempty"` // nil: there is no block
	Record *dumpedRecord `json:"record,omitempty"` // nil: there is none, as on all components but 0
	Lease  *dumpedLease  `json:"lease,omitempty"`  // likewise
}

// dumpedRecord is component 0's extension record in JSON.
type dumpedRecord struct {
	Sequence uint64         `json:"sequence"`
	Clean    bool           `json:"clean"`     // the volume was closed in order
	HandBack bool           `json:"hand_back"` // it is being handed back
	Intent   *dumpedIntent  `json:"intent,omitempty"`
	Job      string         `json:"job,omitempty"`
	Failed   []dumpedFailed `json:"failed"` // members that take no writes

	Directory *dumpedLink `json:"directory,omitempty"` // of the pool
}

// dumpedLease is the lease on component 0 in JSON.
type dumpedLease struct {
	Host     string `json:"host"` // name; empty: the lease cannot be read
	HostID   string `json:"host_id"`
	Since    string `json:"since"`    // RFC 3339
	Released bool   `json:"released"` // the host has ended in order
}

// dumpedLink is where a directory begins.
type dumpedLink struct {
	Member string `json:"member"` // its id
	Chunk  uint32 `json:"chunk"`
	Length uint32 `json:"length"` // bytes
}

// dumpedIntent is the operation under way.
type dumpedIntent struct {
	Kind     string           `json:"kind"`
	Leaves   string           `json:"leaves,omitempty"` // member ids
	Moves    string           `json:"moves,omitempty"`
	FormerID *ondisk.VolumeID `json:"former_id,omitempty"` // of the volume, when it gets another
	Snapshot uint64           `json:"snapshot,omitempty"`  // id of the one that the volume is rolled back to
}

// dumpedFailed is a member that takes no writes.
type dumpedFailed struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"` // which it has at least
}

func dumpedRecordOf(r *ondisk.Extension) *dumpedRecord {
	if r == nil {
		return nil
	}
	d := &dumpedRecord{Sequence: r.Sequence, Clean: r.Clean, HandBack: r.HandBack, Failed: []dumpedFailed{}}
	if i := r.Intent; i.Kind != ondisk.IntentNone {
		d.Intent = &dumpedIntent{Kind: i.Kind.String()}
		if i.Leaves != 0 {
			d.Intent.Leaves = hexID(i.Leaves)
		}
		if i.Moves != 0 {
			d.Intent.Moves = hexID(i.Moves)
		}
		if former := ondisk.VolumeID(i.Arg[0]); i.Kind == ondisk.IntentNewID {
			d.Intent.FormerID = &former
		}
		if i.Kind == ondisk.IntentRollback {
			d.Intent.Snapshot = i.Arg[0]
		}
	}
	if r.Task.Kind != ondisk.TaskNone {
		d.Job = r.Task.Kind.String()
	}
	for _, f := range r.Failed {
		if f.ID != 0 {
			d.Failed = append(d.Failed, dumpedFailed{hexID(f.ID), f.Generation})
		}
	}
	if l := r.Directory; l.Exists() {
		d.Directory = &dumpedLink{hexID(l.Member), l.Chunk, l.Length}
	}
	return d
}

// dumpedMember is a member block in JSON.
type dumpedMember struct {
	ID         string `json:"id"` // 16 hexadecimal digits
	Generation uint64 `json:"generation"`
	Settled    uint64 `json:"settled"`
	Began      string `json:"began"` // RFC 3339
	LastName   string `json:"last_name"`
}

func dumped(name string, l label) dumpedMetadata {
	m := l.Metadata
	d := dumpedMetadata{
		Name: name, Version: m.Version, Volume: m.Name, ID: ondisk.VolumeID(m.ID), Index: m.No, Count: m.Count,
		Hardcoded: m.Provider, ProviderSize: m.ProviderSize, VirtualSize: m.VirtualSize, ChunkSize: m.ChunkSize,
		ChunkCount: m.ChunkCount, ChunkNext: m.ChunkNext, ChunksReserved: m.ChunkReserved,
		ChunksFree: chunksFree(m), Flags: m.Flags, Record: dumpedRecordOf(l.record),
	}
	if o := l.lease; o != nil {
		d.Lease = &dumpedLease{o.HostName, fmt.Sprintf("%x", o.Host), o.Since.UTC().Format(time.RFC3339), o.Released}
	}
	if b := m.Member; b.Exists() {
		d.Member = &dumpedMember{ID: memberID(b), Generation: b.Generation, Settled: b.Settled, Began: began(b), LastName: b.LastName}
	}
	return d
}
