package virstor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

const hostileChunk = ondisk.MinChunkMultiple

// chooser makes choices of the bytes it is given; zeros when they are used up.
type chooser struct{ b []byte }

func (c *chooser) n(n int) int {
	if len(c.b) == 0 {
		return 0
	}
	k := int(c.b[0]) % n
	c.b = c.b[1:]
	return k
}

// number is one at which arithmetic goes wrong.
func (c *chooser) number() uint64 {
	numbers := []uint64{0, 1, 2, 3, 4, 7, 15, 16, 63, 64, 255, 65534, 65535, 65536, 1 << 31, 1<<32 - 1, 1 << 32,
		1 << 47, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1<<63 | hostileChunk,
		hostileChunk, 2 * hostileChunk, 16 * hostileChunk, 64 * hostileChunk, 128 * hostileChunk}
	if c.n(2) == 0 {
		return uint64(c.n(4)) // the index or the number of a component
	}
	return numbers[c.n(len(numbers))]
}

// hostileDisks are those of a volume that holds something, with numbers of c's choice
// in its records, of which all checksums are right.
func hostileDisks(c *chooser) ([]*disktest.Disk, error) {
	var disks []*disktest.Disk
	var ps []geomlib.Provider
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 64 * hostileChunk, ChunkSize: hostileChunk, ID: 9, ChunkMultiple: ondisk.MinChunkMultiple}
	for i := range 1 + c.n(3) {
		d := disktest.New(fmt.Sprintf("d%d", i), 16*hostileChunk, 512)
		disks, ps = append(disks, d), append(ps, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: 512})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		return nil, err
	}
	if err := virstor.Label(context.Background(), ps, l, virstor.LabelOptions{}); err != nil {
		return nil, err
	}
	v, err := openHostile(disks, virstor.Config{})
	if err != nil {
		return nil, err
	}
	for i := range 6 {
		if _, err := v.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 512), int64(c.n(64))*hostileChunk); err != nil {
			return nil, err
		}
	}
	if err := v.Close(); err != nil {
		return nil, err
	}
	if c.n(3) > 0 {
		if err := spoilRecord(c, disks[0], len(disks)); err != nil {
			return nil, err
		}
	}
	for _, d := range disks {
		if err := spoilMetadata(c, d); err != nil {
			return nil, err
		}
	}
	return disks, spoilMap(c, disks[0])
}

// spoilRecord writes an extension record of the highest sequence number.
func spoilRecord(c *chooser, d *disktest.Disk, n int) error {
	m, err := geomlib.ReadMetadata(d)
	if err != nil {
		return err
	}
	off, _ := ondisk.ExtensionOffset(m)
	e := ondisk.Extension{Sequence: 1000 + uint64(c.n(2)), VolumeID: m.ID, ChunkSize: m.ChunkSize, Clean: c.n(2) == 0}
	if c.n(8) == 0 {
		e.Sequence = 1<<64 - 1 - uint64(c.n(2))
	}
	if c.n(2) == 0 {
		e.Intent.Kind = ondisk.IntentRemove + ondisk.IntentKind(c.n(3)*c.n(2)) // mostly that
		for i := range e.Intent.Arg[:2] {
			e.Intent.Arg[i] = c.number()
		}
	}
	if c.n(3) > 0 {
		e.Task.Kind = ondisk.TaskKind(c.n(7))
		e.Task.ComponentCount = uint8(c.n(ondisk.MaxTaskComponents + 1))
		for i := range e.Task.Components[:e.Task.ComponentCount] {
			if e.Task.Components[i] = uint32(c.n(n)); c.n(2) == 0 {
				e.Task.Components[i] = uint32(c.number())
			}
		}
		for i := range e.Task.Arg[:3] {
			e.Task.Arg[i] = c.number()
		}
	}
	b := make([]byte, ondisk.ExtensionRecordSize)
	if err := e.Encode(b); err != nil {
		return err
	}
	if _, err := d.WriteAt(b, off+int64(e.Slot())*ondisk.ExtensionSlotSize); err != nil {
		return err
	}
	return d.Flush()
}

func spoilMetadata(c *chooser, d *disktest.Disk) error {
	m, err := geomlib.ReadMetadata(d)
	if err != nil {
		return err
	}
	if c.n(3) < 2 {
		return nil
	}
	for range 1 + c.n(3) {
		switch c.n(11) {
		case 0:
			m.Count = uint16(c.number())
		case 1:
			m.No = uint16(c.number())
		case 2:
			m.ChunkCount = uint32(c.number())
		case 3:
			m.ChunkNext = uint32(c.number())
		case 4:
			m.ChunkReserved = uint16(c.number())
		case 5:
			m.VirtualSize = c.number()
		case 6:
			m.Version = uint32(c.n(4))
		case 7:
			m.Flags = uint16(c.number())
		case 8:
			m.Name = "0123456789abcdef"
		case 9:
			m.ChunkSize = uint32(c.number())
		case 10:
			m.ProviderSize = c.number()
		}
	}
	if err := geomlib.StoreMetadata(d, m); err != nil {
		return nil // what cannot be written cannot be there
	}
	return nil
}

// spoilMap changes bytes of the map's first sector.
func spoilMap(c *chooser, d *disktest.Disk) error {
	if c.n(3) < 2 {
		return nil
	}
	s := make([]byte, 512)
	if _, err := d.ReadAt(s, 0); err != nil {
		return err
	}
	for range 1 + c.n(4) {
		s[c.n(64)*8+c.n(8)] = byte(c.number())
	}
	if _, err := d.WriteAt(s, 0); err != nil {
		return err
	}
	return d.Flush()
}

// membersOn are the disks that have metadata.
func membersOn(disks []*disktest.Disk) (ms []virstor.Member) {
	for _, d := range disks {
		if m, err := geomlib.ReadMetadata(d); err == nil {
			ms = append(ms, virstor.Member{Provider: d, Metadata: m})
		}
	}
	return ms
}

func openHostile(disks []*disktest.Disk, cfg virstor.Config) (*virstor.Volume, error) {
	as := virstor.Assemble(membersOn(disks))
	if len(as) == 0 {
		return nil, geomlib.ErrNoMetadata
	}
	return virstor.Open(as[0], cfg)
}

// everyVerb does to copies of the disks whatever may meet such records. Errors are
// fine.
func everyVerb(dir string, disks []*disktest.Disk) {
	ctx := context.Background()
	clones := func() (ds []*disktest.Disk, ps []geomlib.Provider) {
		for _, d := range disks {
			c := d.Clone()
			ds, ps = append(ds, c), append(ps, c)
		}
		return ds, ps
	}
	for _, cfg := range []virstor.Config{{WhenFull: virstor.Fail}, {ReadOnly: true}, {DeferWrites: true, WhenFull: virstor.Fail}} {
		ds, _ := clones()
		if v, err := openHostile(ds, cfg); err == nil {
			useHostile(v)
		}
	}
	ds, ps := clones()
	if r, err := check.Inspect(ctx, ps, check.Options{Search: -1}); err == nil {
		_ = r.WriteText(io.Discard, true)
		repairHostile(ctx, dir, r)
		if v, err := openHostile(ds, virstor.Config{WhenFull: virstor.Fail}); err == nil {
			useHostile(v)
		}
	}
	ds, _ = clones()
	for _, a := range virstor.Assemble(membersOn(ds)) {
		_, _ = backup.FromAssembly(ctx, a, time.Unix(0, 0), nil)
		_ = virstor.FinishInterrupted(a, true, nil)
	}
	for _, verb := range hostileVerbs {
		ds, _ := clones()
		if v, err := openHostile(ds, virstor.Config{WhenFull: virstor.Fail}); err == nil {
			spare := disktest.New("spare", 16*hostileChunk, 512)
			_ = v.CancelJob() // useHostile waits for what the record asks for
			_ = verb(v, spare)
			_, _ = v.WaitJob(ctx)
			_ = v.Close()
		}
	}
	for _, rename := range []func(a *virstor.Assembly) error{
		func(a *virstor.Assembly) error { return virstor.Rename(a, "other", false, nil) },
		func(a *virstor.Assembly) error { return virstor.NewID(a, 77, true, nil) },
	} {
		ds, _ := clones()
		for _, a := range virstor.Assemble(membersOn(ds)) {
			_ = rename(a)
		}
	}
	ds, _ = clones()
	for _, d := range ds {
		_, _, _ = virstor.Expand(ctx, d, virstor.Expansion{Volume: "vol"})
	}
}

// hostileVerbs are those of a volume in service.
var hostileVerbs = []func(v *virstor.Volume, spare geomlib.Provider) error{
	func(v *virstor.Volume, spare geomlib.Provider) error {
		return v.Add([]geomlib.Provider{spare}, virstor.AddOptions{})
	},
	func(v *virstor.Volume, _ geomlib.Provider) error { return v.Remove(lastOf(v)) },
	func(v *virstor.Volume, _ geomlib.Provider) error {
		return v.Evacuate([]string{lastOf(v)}, "", virstor.JobOptions{})
	},
	func(v *virstor.Volume, spare geomlib.Provider) error {
		return v.Replace(v.Providers()[0].Name(), spare, false, virstor.JobOptions{})
	},
	func(v *virstor.Volume, _ geomlib.Provider) error { return v.Pack(virstor.JobOptions{}) },
	func(v *virstor.Volume, _ geomlib.Provider) error { return v.Rebalance(virstor.JobOptions{}) },
	func(v *virstor.Volume, _ geomlib.Provider) error { return v.Reclaim(virstor.JobOptions{}) },
	func(v *virstor.Volume, _ geomlib.Provider) error {
		return v.Resize(30000*hostileChunk, true, virstor.JobOptions{})
	},
	func(v *virstor.Volume, _ geomlib.Provider) error {
		return v.Resize(16*hostileChunk, true, virstor.JobOptions{})
	},
	func(v *virstor.Volume, _ geomlib.Provider) error { return v.RaiseGeneration() },
}

func lastOf(v *virstor.Volume) string {
	ps := v.Providers()
	return ps[len(ps)-1].Name()
}

// repairHostile repairs what r says that repair can.
func repairHostile(ctx context.Context, dir string, r *check.Report) {
	plans, err := repair.Make(r, repair.Choices{})
	if err != nil {
		return
	}
	for i, p := range plans {
		path := filepath.Join(dir, fmt.Sprint(rand.Uint64(), i))
		j, err := repair.CreateJournal(path, p, time.Unix(0, 0))
		if err != nil {
			continue
		}
		_, _ = repair.Apply(ctx, p, j, nil)
		_ = j.Close()
		_ = os.Remove(path)
	}
}

// useHostile asks a bit of everything of a volume, and stops it.
func useHostile(v *virstor.Volume) {
	if v.Deferred() {
		_ = v.Activate(nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _ = v.WaitJob(ctx)
	b := make([]byte, 512)
	_, _ = v.ReadAt(b, 0)
	_, _ = v.WriteAt(b, max(0, v.Size()-512))
	_, _ = v.WriteAt(b, 0)
	_ = v.Discard(0, v.Size())
	_ = v.CopyMap()
	_, _ = v.Status(), v.Metadata()
	_ = v.Stop()
}

// hostileMemory is what records may make the verbs take, bytes, beyond what the
// geometry of such a small volume needs: next to nothing.
const hostileMemory = 64 << 20

// hostileRun is one set of records. It returns what went wrong.
func hostileRun(dir string, data []byte) (wrong string) {
	defer func() {
		if e := recover(); e != nil {
			wrong = fmt.Sprintf("panic: %v\n%s", e, debug.Stack())
		}
	}()
	disks, err := hostileDisks(&chooser{data})
	if err != nil {
		return err.Error()
	}
	done := make(chan struct{})
	most := make(chan uint64)
	go func() { most <- watchMemory(done) }()
	everyVerb(dir, disks)
	close(done)
	if n := <-most; n > hostileMemory {
		return fmt.Sprintf("%d bytes of memory", n)
	}
	return ""
}

// watchMemory returns by how much the heap grew at most until done is closed. What
// other tests left behind lets a lot of garbage gather before it is collected, so
// growth counts only when it outlives a collection.
func watchMemory(done <-chan struct{}) (most uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > before+hostileMemory {
			runtime.GC()
			runtime.ReadMemStats(&m)
		}
		if m.HeapAlloc > before {
			most = max(most, m.HeapAlloc-before)
		}
		select {
		case <-done:
			return most
		case <-t.C:
		}
	}
}

func TestRecordsThatLieHurtNobody(t *testing.T) {
	dir := t.TempDir()
	seeds := uint64(400) // `make soak` goes on
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		if wrong := hostileSeed(dir, seed); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
	}
}

// hostileSeed is the set of records that a seed makes.
func hostileSeed(dir string, seed uint64) (wrong string) {
	data := make([]byte, 96)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	ended := make(chan string, 1)
	go func() { ended <- hostileRun(dir, data) }()
	select {
	case wrong = <-ended:
		return wrong
	case <-time.After(time.Minute):
		return "no end"
	}
}

func FuzzRecordsThatLie(f *testing.F) {
	f.Add([]byte{2, 1, 2, 3, 4, 5, 6, 1, 0, 0, 1, 0, 1, 0, 0, 1, 5})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if wrong := hostileRun(dir, data); wrong != "" {
			t.Error(wrong)
		}
	})
}

func TestARecordThatCannotBeIsNamedAndRepaired(t *testing.T) {
	for name, spoil := range map[string]func(*ondisk.Extension){
		"an intent": func(e *ondisk.Extension) { e.Intent.Kind = ondisk.IntentRemove },
		"a task":    func(e *ondisk.Extension) { e.Task.Kind, e.Task.Arg[1] = ondisk.TaskResize, 1<<64-1 },
	} {
		disks, err := hostileDisks(&chooser{nil})
		if err != nil {
			t.Fatal(err)
		}
		m, err := geomlib.ReadMetadata(disks[0])
		if err != nil {
			t.Fatal(err)
		}
		off, _ := ondisk.ExtensionOffset(m)
		e := ondisk.Extension{Sequence: 1000, VolumeID: m.ID, ChunkSize: m.ChunkSize}
		spoil(&e)
		b := make([]byte, 512)
		if err := e.Encode(b); err != nil {
			t.Fatal(err)
		}
		if _, err := disks[0].WriteAt(b, off+int64(e.Slot())*ondisk.ExtensionSlotSize); err != nil {
			t.Fatal(err)
		}
		if _, err := openHostile(disks, virstor.Config{}); !errors.Is(err, virstor.ErrDamaged) {
			t.Errorf("%s: open: %v", name, err)
		}
		r, err := check.Inspect(t.Context(), []geomlib.Provider{disks[0]}, check.Options{Search: -1})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Code == check.ExtensionAbsurd }) {
			t.Errorf("%s: check finds %v", name, r.Findings)
		}
		repairHostile(t.Context(), t.TempDir(), r)
		v, err := openHostile(disks, virstor.Config{})
		if err != nil {
			t.Fatalf("%s: open after repair: %v", name, err)
		}
		if got := v.Status().Allocated; got != 1 {
			t.Errorf("%s: %d chunks after repair", name, got)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}
