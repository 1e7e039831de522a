package geomlib

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func sampleTree(t testing.TB) *Tree {
	t.Helper()
	f, err := os.Open("testdata/confxml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := ParseTree(f)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestTreeHoldsWhatTheKernelPrinted(t *testing.T) {
	tree := sampleTree(t)
	if n := len(tree.Classes); n != 9 {
		t.Errorf("%d classes", n)
	}
	gate := tree.Geom("GATE", "virstor/mydata")
	if gate == nil || gate.Class != tree.Class("GATE") || gate.Rank != 3 {
		t.Fatalf("geom %+v", gate)
	}
	if gate.Config["info"] != "ggated-virstor 4f2a91c0" || gate.Config["unit"] != "0" {
		t.Errorf("config of the gate: %v", gate.Config)
	}
	p := tree.Provider("/dev/virstor/mydata")
	if p == nil || p.Geom != gate || p != gate.Providers[0] {
		t.Fatalf("provider %+v", p)
	}
	if p.MediaSize != 2199023255552 || p.SectorSize != 512 || p.Mode != (Mode{1, 1, 2}) || p.Mode.String() != "r1w1e2" {
		t.Errorf("provider %+v", p)
	}
	ada4 := tree.Provider("ad8")
	if ada4 == nil || ada4.Name != "ada4" || ada4.StripeSize != 4096 || ada4.Config["ident"] != "WD-2 & co" {
		t.Errorf("by its alias: %+v", ada4)
	}
	part := tree.Geom("PART", "virstor/mydata")
	if c := part.Consumers[0]; c.Provider != p || c.Geom != part || c.Mode != (Mode{1, 1, 2}) {
		t.Errorf("consumer %+v", c)
	}
	if c := tree.Geom("ELI", "ada9.eli").Consumers[0]; c.Provider != nil {
		t.Errorf("a consumer without a provider has %+v", c.Provider)
	}
	if md := tree.Geom("MD", "md1"); !md.Wither || !md.Providers[0].Wither || tree.Geom("MD", "md0").Wither {
		t.Error("wither is not told apart")
	}
	for _, none := range []any{tree.Class("VIRSTOR"), tree.Geom("VIRSTOR", "x"), tree.Geom("MD", "x"), tree.Provider("x")} {
		switch none := none.(type) {
		case *Class:
			if none != nil {
				t.Error("found", none.Name)
			}
		case *Geom:
			if none != nil {
				t.Error("found", none.Name)
			}
		case *TreeProvider:
			if none != nil {
				t.Error("found", none.Name)
			}
		}
	}
}

func TestTreeTurnsEscapedBytesBackIntoText(t *testing.T) {
	tree := sampleTree(t)
	if tree.Provider("ufs/Bücher") == nil {
		t.Error("a name in UTF-8 is not found")
	}
	// GEOM_GATE prints this without escaping it; the last byte is Latin-1.
	if info := tree.Geom("GATE", "ggate1").Config["info"]; info != "storage:3080 /export/a & b \xe4" {
		t.Errorf("info is %q", info)
	}
}

func TestOnTopOf(t *testing.T) {
	tree := sampleTree(t)
	for _, c := range []struct {
		name, target string
		want         bool
	}{
		{"virstor/mydatap1", "virstor/mydata", true},
		{"/dev/virstor/mydatap1", "/dev/virstor/mydata", true},
		{"virstor/mydata", "virstor/mydata", true},
		{"virstor/mydata", "virstor/mydatap1", false},
		{"ufs/Bücher", "ada0", true},
		{"ufs/Bücher", "ada0p1", false},
		{"ada4", "virstor/mydata", false},
		{"no-such", "ada0", false},
		{"ada0", "no-such", false},
	} {
		if got := tree.OnTopOf(c.name, c.target); got != c.want {
			t.Errorf("%s on top of %s: %v", c.name, c.target, got)
		}
	}
}

func TestAProviderOnItsWayOutGivesWayToItsSuccessor(t *testing.T) {
	tree := sampleTree(t)
	md := tree.Geom("MD", "md0")
	old := tree.Geom("MD", "md1").Providers[0]
	md.Providers[0].Name = "md1"
	if p := tree.Provider("md1"); p != md.Providers[0] {
		t.Errorf("found %+v", p)
	}
	md.Class.Geoms[0], md.Class.Geoms[1] = md.Class.Geoms[1], md.Class.Geoms[0]
	if p := tree.Provider("md1"); p == old {
		t.Error("found the one on its way out")
	}
}

func TestParseTreeRefusesWhatIsNoTree(t *testing.T) {
	sample, err := os.ReadFile("testdata/confxml")
	if err != nil {
		t.Fatal(err)
	}
	s := string(sample)
	for what, xml := range map[string]string{
		"nothing":          "",
		"another document": "<html></html>",
		"half a document":  s[:len(s)/2],
		"a dangling ref":   strings.Replace(s, `<provider ref="0x`, `<provider ref="0y`, 1),
		"an id used twice": `<mesh><class><geom><provider id="0x1"><mode>r0w0e0</mode></provider><provider id="0x1"><mode>r0w0e0</mode></provider></geom></class></mesh>`,
		"no id":            `<mesh><class><geom><provider><mode>r0w0e0</mode></provider></geom></class></mesh>`,
		"a mode of words":  strings.Replace(s, "r2w2e3", "open", 1),
		"a mode and more":  strings.Replace(s, "r2w2e3", "r2w2e3x", 1),
		"a size of words":  strings.Replace(s, "<mediasize>5", "<mediasize>x", 1),
		"a bottomless config": "<mesh><class><geom><config>" + strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100) +
			"</config></geom></class></mesh>",
	} {
		if tree, err := ParseTree(strings.NewReader(xml)); !errors.Is(err, ErrTree) {
			t.Errorf("%s: %v, %v", what, tree, err)
		}
	}
	if _, err := ParseTree(strings.NewReader(s + "\x00")); err != nil {
		t.Errorf("the NUL behind the string: %v", err)
	}
}

func TestConfigKeepsTheFirstOfANameAndNestedOnes(t *testing.T) {
	tree, err := ParseTree(strings.NewReader(`<mesh><class><name>X</name><geom><name>g</name><config>
		<a>1</a><a>2</a><outer> <inner> 3 </inner></outer><empty/></config></geom></class></mesh>`))
	if err != nil {
		t.Fatal(err)
	}
	c := tree.Geom("X", "g").Config
	if c["a"] != "1" || c["outer/inner"] != "3" || len(c) != 4 {
		t.Fatalf("%q", c)
	}
	if v, ok := c["empty"]; v != "" || !ok {
		t.Fatalf("%q", c)
	}
}

// TestABusyKernelHoldsUpNobody: the answer that comes too late is dropped, and
// while the question is out nobody asks a second one.
func TestABusyKernelHoldsUpNobody(t *testing.T) {
	sample, err := os.ReadFile("testdata/confxml")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		answer := make(chan struct{})
		r := NewTreeReader(func() ([]byte, error) {
			asked.Add(1)
			<-answer
			return sample, nil
		})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := r.Read(ctx)
			cancel()
			if !errors.Is(err, ErrTreeBusy) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Fatal(n, "questions at once")
		}
		close(answer)
		tree, err := r.Read(t.Context())
		if err != nil || tree.Class("GATE") == nil || asked.Load() != 2 {
			t.Fatal(tree, err, asked.Load())
		}
	})
}

func TestATornTreeIsReadAgain(t *testing.T) {
	sample, err := os.ReadFile("testdata/confxml")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	r := NewTreeReader(func() ([]byte, error) {
		asked++
		if asked%2 == 1 {
			return sample[:len(sample)-20], nil
		}
		return sample, nil
	})
	if _, err := r.Read(t.Context()); err != nil || asked != 2 {
		t.Fatal(err, asked)
	}
	r = NewTreeReader(func() ([]byte, error) { return nil, nil })
	if _, err := r.Read(t.Context()); !errors.Is(err, ErrTree) {
		t.Fatal(err)
	}
	r = NewTreeReader(func() ([]byte, error) { return nil, os.ErrPermission })
	if _, err := r.Read(t.Context()); !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
}

func TestTheKernelsTreeIsThereOnFreeBSDOnly(t *testing.T) {
	tree, err := ReadTree(t.Context())
	if runtime.GOOS != "freebsd" {
		if !errors.Is(err, ErrNotSupported) {
			t.Fatal(err)
		}
		return
	}
	if err != nil || tree.Class("DEV") == nil {
		t.Fatal(tree, err)
	}
}

// FuzzParseTree: whatever is parsed can be asked, and every reference in it
// leads back.
func FuzzParseTree(f *testing.F) {
	sample, err := os.ReadFile("testdata/confxml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Add([]byte("<mesh></mesh>\x00"))
	f.Add([]byte(`<mesh><class><geom><consumer><provider ref="0x1"/><mode>r0w0e0</mode></consumer>` +
		`<provider id="0x1"><mode>r0w0e0</mode><name>&#xC3;&bc</name></provider></geom></class></mesh>`)) // on top of itself
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := ParseTree(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrTree) {
				t.Fatal(err)
			}
			return
		}
		for _, c := range tree.Classes {
			for _, g := range c.Geoms {
				if g.Class != c {
					t.Fatal("a geom of another class")
				}
				for _, p := range g.Providers {
					if p.Geom != g || tree.Provider(p.Name) == nil && !strings.HasPrefix(p.Name, "/dev/") {
						t.Fatalf("provider %q is not found", p.Name)
					}
					tree.OnTopOf(p.Name, g.Name)
				}
				for _, cp := range g.Consumers {
					if cp.Geom != g {
						t.Fatal("a consumer of another geom")
					}
				}
			}
		}
	})
}
