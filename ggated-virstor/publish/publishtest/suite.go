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
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t), newVolume(t)) })
	}
}

// patience is how long anything may take.
const patience = 20 * time.Second

const (
	mib     = 1 << 20
	sector  = 512
	length  = 8 * sector
	address = 3 * mib
)

func newVolume(t *testing.T) *virstor.Volume {
	t.Helper()
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 8 * mib, ChunkSize: 128 << 10, ID: 0xabc, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for _, name := range []string{"a", "b"} {
		d := disktest.New(name, 8*mib, sector)
		ps = append(ps, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: name, Size: d.MediaSize(), SectorSize: sector})
	}
	l, err := ondisk.Plan(req)
	must(t, err)
	must(t, virstor.Label(t.Context(), ps, l, virstor.LabelOptions{}))
	var members []virstor.Member
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		must(t, err)
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(members)[0], virstor.Config{})
	must(t, err)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
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
