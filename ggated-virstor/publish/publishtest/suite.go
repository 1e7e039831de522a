// Package publishtest is what every way to publish must do: a suite that each
// publish.Publisher runs with clients of its own kind.
package publishtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Way is a way to publish, and how its clients get at what is published.
type Way struct {
	Publisher publish.Publisher
	// Open has a client open what is published, for reading and writing.
	Open func(t *testing.T, p publish.Published) Client
}

// Client is somebody who has a volume open. Offsets and lengths are of whole sectors of
// 512 bytes.
type Client interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// Run tries the Way that start makes, anew for each of its tests.
func Run(t *testing.T, start func(t *testing.T) Way) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, w Way, v *virstor.Volume)
	}{
		{"what a client writes is the volume's", clientsReachTheVolume},
		{"who has it open is known", usersAreCounted},
		{"what is in use is withdrawn whole or not at all", inUse},
		{"users can be made to leave", disconnected},
		{"what was withdrawn can be published again", publishedAgain},
		{"what was left can be published again", leftAndPublishedAgain},
		{"its volume may change", follows},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t), open(t, label(t, 8*mib))) })
	}
	for _, c := range []struct {
		name string
		test func(t *testing.T, w Way, full []geomlib.Provider)
	}{
		{"a write that waits for space is done when there is some", heldWriteGoesOn},
		{"a write that waits for space ends with its user", heldWriteEndsWithItsUser},
		{"a write that waits for space is left to the next publication, or ends", heldWriteIsLeft},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t), fullVolume(t)) })
	}
}

// patience is how long anything may take.
const patience = 20 * time.Second

const (
	mib     = 1 << 20
	chunk   = 128 << 10
	sector  = 512
	length  = 8 * sector
	address = 3 * mib
)

// label makes a volume of so many bytes on two disks of 8 MiB.
func label(t *testing.T, size int64) []geomlib.Provider {
	t.Helper()
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: size, ChunkSize: chunk, ID: 0xabc, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for _, name := range []string{"a", "b"} {
		d := disktest.New(name, 8*mib, sector)
		ps = append(ps, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: name, Size: d.MediaSize(), SectorSize: sector})
	}
	l, err := ondisk.Plan(req)
	must(t, err)
	must(t, virstor.Label(t.Context(), ps, l, virstor.LabelOptions{}))
	return ps
}

// open opens the volume on ps until the end of the test, or until it is closed.
func open(t *testing.T, ps []geomlib.Provider) *virstor.Volume {
	t.Helper()
	var members []virstor.Member
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		must(t, err)
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(members)[0], virstor.Config{})
	must(t, err)
	t.Cleanup(func() {
		if err := v.Close(); err != nil && !errors.Is(err, virstor.ErrClosed) {
			t.Error(err)
		}
	})
	return v
}

// fullVolume makes a volume of 32 MiB of which the first chunks are allocated, so many
// that none is free.
func fullVolume(t *testing.T) []geomlib.Provider {
	t.Helper()
	ps := label(t, 32*mib)
	v := open(t, ps)
	for off := int64(0); v.Status().Free > 0; off += chunk {
		_, err := v.WriteAt(bytes.Repeat([]byte{1}, length), off)
		must(t, err)
	}
	must(t, v.Close())
	return ps
}

// unallocated is where fullVolume has no chunk.
const unallocated = 30 * mib

// holdWrite has c write where there is no chunk, and returns when the volume holds that.
func holdWrite(t *testing.T, c Client, v *virstor.Volume) (done <-chan error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := c.WriteAt(bytes.Repeat([]byte{5}, length), unallocated)
		ended <- err
	}()
	eventually(t, "the write is held", func() bool { return v.Status().Held.Count == 1 })
	return ended
}

// outcome is how a write ended.
func outcome(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("the write never ends")
		return nil
	}
}

// grow gives v chunks.
func grow(t *testing.T, v *virstor.Volume) {
	t.Helper()
	must(t, v.Add([]geomlib.Provider{disktest.New("c", 8*mib, sector)}, virstor.AddOptions{}))
}

// published publishes v, and withdraws it at the end of the test if nothing else did.
func published(t *testing.T, w Way, v *virstor.Volume) publish.Published {
	t.Helper()
	p, err := w.Publisher.Publish(v)
	must(t, err)
	return p
}

func withdraw(t *testing.T, p publish.Published) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	eventually(t, "nobody has it open", func() bool { n, _ := p.Users(); return n == 0 })
	must(t, p.Withdraw(ctx))
}

func clientsReachTheVolume(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	c := w.Open(t, p)
	want := bytes.Repeat([]byte{7}, length)
	_, err := c.WriteAt(want, address)
	must(t, err)
	got := make([]byte, length)
	_, err = v.ReadAt(got, address)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("what was written is not in the volume")
	}
	_, err = c.ReadAt(got, address+mib)
	must(t, err)
	if !bytes.Equal(got, make([]byte, length)) {
		t.Error("what was never written is not zeros")
	}
	must(t, c.Close())
	withdraw(t, p)
}

func usersAreCounted(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	names, said := p.Names(), p.Describe()
	if len(names) == 0 || len(said) == 0 {
		t.Fatalf("names %q, description %+v", names, said)
	}
	for _, d := range said {
		if d.Kind == "" || d.Name == "" {
			t.Errorf("described as %+v", d)
		}
	}
	if n, _ := p.Users(); n != 0 {
		t.Errorf("%d users before anybody came", n)
	}
	c := w.Open(t, p)
	if n, what := p.Users(); n == 0 || what == "" {
		t.Errorf("one user is %d, %q", n, what)
	}
	must(t, c.Close())
	withdraw(t, p)
}

func inUse(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	c := w.Open(t, p)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := p.Withdraw(ctx)
	_, readErr := c.ReadAt(make([]byte, length), address)
	switch {
	case errors.Is(err, publish.ErrInUse):
		if readErr != nil {
			t.Errorf("in use, and not served: %v", readErr)
		}
		must(t, c.Close())
		withdraw(t, p)
	case err != nil:
		t.Fatal(err)
	case readErr == nil:
		t.Error("withdrawn, and served")
	}
}

func disconnected(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	c := w.Open(t, p)
	p.Disconnect()
	eventually(t, "nobody has it open", func() bool { n, _ := p.Users(); return n == 0 })
	if _, err := c.ReadAt(make([]byte, length), address); err == nil {
		t.Error("a user who was made to leave reads")
	}
	withdraw(t, p)
}

func publishedAgain(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	names := p.Names()
	withdraw(t, p)
	p = published(t, w, v)
	if again := p.Names(); len(again) != len(names) {
		t.Errorf("names %q became %q", names, again)
	}
	c := w.Open(t, p)
	_, err := c.ReadAt(make([]byte, length), 0)
	must(t, err)
	must(t, c.Close())
	withdraw(t, p)
}

func leftAndPublishedAgain(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	c := w.Open(t, p)
	want := bytes.Repeat([]byte{9}, length)
	_, err := c.WriteAt(want, address)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(t, p.Leave(ctx))
	p = published(t, w, v)
	if _, durable := w.Publisher.(publish.Durable); !durable {
		c = w.Open(t, p) // clients come back by themselves
	}
	got := make([]byte, length)
	_, err = c.ReadAt(got, address)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("what was written before is not there")
	}
	must(t, c.Close())
	withdraw(t, p)
}

func follows(t *testing.T, w Way, v *virstor.Volume) {
	p := published(t, w, v)
	if f, ok := p.(publish.Follower); ok {
		for _, kind := range []virstor.EventKind{virstor.EventComponents, virstor.EventResized, virstor.EventFull} {
			must(t, f.Follow(virstor.Event{Kind: kind}))
		}
	}
	if d, ok := p.(publish.Drainer); ok {
		must(t, d.Drain(t.Context()))
	}
	withdraw(t, p)
}

// heldWriteGoesOn: and what needs no space is served meanwhile.
func heldWriteGoesOn(t *testing.T, w Way, full []geomlib.Provider) {
	v := open(t, full)
	p := published(t, w, v)
	c, other := w.Open(t, p), w.Open(t, p)
	done := holdWrite(t, c, v)
	for _, user := range []Client{c, other} {
		_, err := user.WriteAt(bytes.Repeat([]byte{2}, length), chunk)
		must(t, err)
		_, err = user.ReadAt(make([]byte, length), unallocated)
		must(t, err)
	}
	grow(t, v)
	must(t, outcome(t, done))
	got := make([]byte, length)
	_, err := other.ReadAt(got, unallocated)
	must(t, err)
	if !bytes.Equal(got, bytes.Repeat([]byte{5}, length)) {
		t.Error("a write that was held is not there")
	}
	must(t, errors.Join(c.Close(), other.Close()))
	withdraw(t, p)
}

// heldWriteEndsWithItsUser: as when a volume is stopped by force.
func heldWriteEndsWithItsUser(t *testing.T, w Way, full []geomlib.Provider) {
	v := open(t, full)
	p := published(t, w, v)
	done := holdWrite(t, w.Open(t, p), v)
	v.SetFull(virstor.Fail, 0)
	v.FailHeld()
	p.Disconnect()
	if outcome(t, done) == nil {
		t.Error("a write without a chunk is acknowledged")
	}
	if d, ok := p.(publish.Drainer); ok {
		must(t, d.Drain(t.Context()))
	}
	withdraw(t, p)
	must(t, v.Close())
}

// heldWriteIsLeft: the daemon closes the volume, and the next one opens it.
func heldWriteIsLeft(t *testing.T, w Way, full []geomlib.Provider) {
	v := open(t, full)
	p := published(t, w, v)
	c := w.Open(t, p)
	done := holdWrite(t, c, v)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(t, p.Leave(ctx))
	must(t, v.Close())
	if _, durable := w.Publisher.(publish.Durable); !durable {
		if outcome(t, done) == nil {
			t.Error("a write without a chunk is acknowledged")
		}
		return
	}
	v = open(t, full)
	p = published(t, w, v)
	eventually(t, "the write is held again", func() bool { return v.Status().Held.Count == 1 })
	grow(t, v)
	must(t, outcome(t, done))
	must(t, c.Close())
	withdraw(t, p)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that has no event of its own.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
