package picture_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
)

func draw(t testing.TB, disks []*disktest.Disk, cells int) *picture.Picture {
	t.Helper()
	p, err := tryDraw(t, disks, cells)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryDraw(t testing.TB, disks []*disktest.Disk, cells int) (*picture.Picture, error) {
	t.Helper()
	return tryDrawing(t, disks, picture.Options{Cells: cells})
}

func tryDrawing(t testing.TB, disks []*disktest.Disk, opt picture.Options) (*picture.Picture, error) {
	t.Helper()
	var ms []virstor.Member
	for _, d := range disks {
		ms = append(ms, virstor.Member{Provider: d, Metadata: voltest.Metadata(t, d)})
	}
	return picture.FromAssembly(context.Background(), virstor.Assemble(ms)[0], opt)
}

// withSnapshot is voltest.New with the snapshot "then", behind which virtual chunk 0 was
// written to and 17 given up.
func withSnapshot(t testing.TB) []*disktest.Disk {
	t.Helper()
	disks, _ := voltest.New(t, false)
	v := voltest.Open(t, virstor.Config{}, disks)
	_, err := v.WriteAt(bytes.Repeat([]byte{3}, 512), 0)
	err = errors.Join(v.Snapshot("then"), err)
	_, werr := v.WriteAt(bytes.Repeat([]byte{4}, 512), 0)
	if err := errors.Join(err, werr, v.Discard(17*voltest.Chunk, voltest.Chunk), v.Close()); err != nil {
		t.Fatal(err)
	}
	return disks
}

func TestASnapshotIsDrawnAndFillsTheComponents(t *testing.T) {
	disks := withSnapshot(t)
	now := draw(t, disks, 128)
	then, err := tryDrawing(t, disks, picture.Options{Cells: 128, Snapshot: "then"})
	if err != nil {
		t.Fatal(err)
	}
	if then.Name != voltest.Name+"@then" || then.Allocated != now.Allocated+1 || then.Cells[17].Fill != 1 || now.Cells[17].Fill != 0 {
		t.Errorf("now %+v\nthen %+v", now, then)
	}
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	for i, c := range v.Status().Components {
		if now.Components[i].Used != uint64(c.Used) || then.Components[i].Used != uint64(c.Used) {
			t.Errorf("component %d: %d chunks are drawn, and %d of a snapshot, %d are used", i, now.Components[i].Used, then.Components[i].Used, c.Used)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryDrawing(t, disks, picture.Options{Cells: 8, Snapshot: "never"}); !errors.Is(err, picture.ErrNoSnapshot) {
		t.Errorf("a snapshot that is not there: %v", err)
	}
}

func TestAFurtherVolumeIsDrawnAndOneOfItsSnapshots(t *testing.T) {
	disks := withSnapshot(t)
	v := voltest.Open(t, virstor.Config{}, disks)
	_, err := v.CreateVolume("web", 8*voltest.Chunk, false)
	if err != nil {
		t.Fatal(err)
	}
	web, err := v.OpenVolume("web")
	if err != nil {
		t.Fatal(err)
	}
	_, err = web.WriteAt(bytes.Repeat([]byte{5}, 512), 6*voltest.Chunk)
	err = errors.Join(err, web.Snapshot("empty"), web.Discard(6*voltest.Chunk, voltest.Chunk))
	_, werr := web.WriteAt(bytes.Repeat([]byte{6}, 3*voltest.Chunk), 0)
	web.Release()
	if err := errors.Join(err, werr, v.Close()); err != nil {
		t.Fatal(err)
	}
	v = voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	used := v.Status().Components
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		opt   picture.Options
		name  string
		cells string // of 8, those that are filled
	}{
		{picture.Options{Volume: "web"}, voltest.Name + "/web", "###....."},
		{picture.Options{Volume: "web", Snapshot: "empty"}, voltest.Name + "/web@empty", "......#."},
	} {
		c.opt.Cells = 8
		p, err := tryDrawing(t, disks, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		cells := ""
		for _, cell := range p.Cells {
			cells += map[bool]string{false: ".", true: "#"}[cell.Fill > 0]
		}
		if p.Name != c.name || cells != c.cells || p.VirtualSize != 8*voltest.Chunk || p.VirtualChunks != 8 || p.Allocated != uint64(strings.Count(c.cells, "#")) {
			t.Errorf("%s is %s: %+v", c.name, cells, p)
		}
		for i, u := range used {
			if p.Components[i].Used != uint64(u.Used) {
				t.Errorf("%s: component %d: %d chunks are drawn, %d are used", c.name, i, p.Components[i].Used, u.Used)
			}
		}
	}
	if _, err := tryDrawing(t, disks, picture.Options{Cells: 8, Volume: "ftp"}); !errors.Is(err, picture.ErrNoVolume) {
		t.Errorf("a volume that is not there: %v", err)
	}
	if _, err := tryDrawing(t, disks, picture.Options{Cells: 8, Volume: "web", Snapshot: "then"}); !errors.Is(err, picture.ErrNoSnapshot) {
		t.Errorf("a snapshot of another volume: %v", err)
	}
}

func golden(t testing.TB, cells int) *picture.Picture {
	return draw(t, voltest.Golden(t, "../../../tests/testdata/golden"), cells)
}

func TestTheKernelsVolumeLooksLikeWhatWasWritten(t *testing.T) {
	p := golden(t, 64) // cells of 16 MiB
	var b bytes.Buffer
	if err := p.WriteText(&b, picture.TextOptions{Width: 66, ASCII: true}); err != nil {
		t.Fatal(err)
	}
	want := "written: 46 of 1024 chunks allocated (4.5%)\n" +
		"|.     :     :#:                            .                   .|\n" +
		"written-0 [###########################################] 29/29 100%\n" +
		"written-1 [########################-------------------] 17/31  55%\n" +
		"written-2 [-------------------------------------------]  0/39   0%\n"
	if got := b.String(); got != want {
		t.Errorf("drawn:\n%s\nwant:\n%s", got, want)
	}
	sum := 0.0
	for _, c := range p.Cells {
		sum += c.Fill * 16
	}
	if math.Round(sum) != 46 || p.Cells[0].Fill != 3.0/16 || p.Cells[63].Fill != 1.0/16 || p.Cells[1].Fill != 0 {
		t.Errorf("cells %v", p.Cells)
	}
	if c := p.Components[2]; c.Used != 0 || c.Chunks != 39 || p.Components[0].Fill != 1 {
		t.Errorf("components %+v", p.Components)
	}
}

func TestWhatIsDrawnIsWhatTheOpenVolumeTells(t *testing.T) {
	disks, _ := voltest.New(t, false)
	v := voltest.Open(t, virstor.Config{ReadOnly: true}, disks)
	defer v.Close()
	p := draw(t, disks, 128) // one cell for each chunk
	s := v.Status()
	if p.VirtualSize != s.Size || p.ChunkSize != s.ChunkSize || p.Allocated != uint64(s.Allocated) {
		t.Errorf("drawn %+v\nopen %+v", p, s)
	}
	for i, c := range s.Components {
		if d := p.Components[i]; d.Name != c.Name || d.Chunks != uint64(c.Usable) || d.Used != uint64(c.Used) || d.Reserved != uint64(c.Reserved) {
			t.Errorf("component %d: drawn %+v\nopen %+v", i, d, c)
		}
	}
	at := 0
	v.Extents(0, s.Size, func(n int64, allocated bool) bool {
		for ; n > 0; n -= s.ChunkSize {
			if (p.Cells[at].Fill != 0) != allocated {
				t.Errorf("chunk %d is drawn as %v", at, p.Cells[at])
			}
			at++
		}
		return true
	})
	open, err := picture.FromVolume(v, 128)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(open, p) {
		t.Errorf("drawn open %+v\nand from the disks %+v", open, p)
	}
}

func TestEachCellSaysWhichComponentsHoldIt(t *testing.T) {
	disks, _ := voltest.New(t, false)
	for _, cells := range []int{1, 3, 7, 50, 128} {
		p := draw(t, disks, cells)
		held, end := make([]uint64, len(p.Components)), int64(0)
		for i, c := range p.Cells {
			if c.Offset != end {
				t.Errorf("%d cells: cell %d begins at %d, want %d", cells, i, c.Offset, end)
			}
			end = c.Offset + c.Length
			sum, last := uint64(0), -1
			for _, s := range c.Shares {
				if s.Component <= last || s.Chunks == 0 {
					t.Errorf("%d cells: shares %v", cells, c.Shares)
				}
				held[s.Component] += s.Chunks
				sum, last = sum+s.Chunks, s.Component
			}
			if want := float64(sum) / float64(c.Length/p.ChunkSize); c.Fill != want {
				t.Errorf("%d cells: cell %d is filled %v, want %v", cells, i, c.Fill, want)
			}
		}
		if end != p.VirtualSize {
			t.Errorf("%d cells end at %d", cells, end)
		}
		for i, c := range p.Components {
			if held[i] != c.Used {
				t.Errorf("%d cells: %d chunks are on component %d, want %d", cells, held[i], i, c.Used)
			}
		}
	}
}

func TestAPictureHasANumberOfCellsThatCanBeDrawn(t *testing.T) {
	disks, _ := voltest.New(t, false)
	for _, cells := range []int{0, -1, 1 << 21} {
		if _, err := tryDraw(t, disks, cells); !errors.Is(err, picture.ErrCells) {
			t.Errorf("%d cells: %v", cells, err)
		}
	}
}

func TestNoChunkIsLostBetweenCells(t *testing.T) {
	disks, _ := voltest.New(t, false)
	rapid.Check(t, func(rt *rapid.T) {
		cells := rapid.IntRange(1, 300).Draw(rt, "cells")
		p, err := tryDraw(t, disks, cells)
		if err != nil {
			rt.Fatal(err)
		}
		sum, n := 0.0, uint64(len(p.Cells))
		for i, c := range p.Cells {
			size := (uint64(i)+1)*128/n - uint64(i)*128/n
			if c.Fill < 0 || c.Fill > 1 {
				rt.Fatalf("cell %d is %v", i, c)
			}
			sum += c.Fill * float64(size)
		}
		if math.Round(sum) != 24 || p.Allocated != 24 {
			rt.Fatalf("%v of 24", sum)
		}
	})
}

func TestThePictureFitsTheTerminal(t *testing.T) {
	for _, width := range []int{0, 20, 40, 80, 200} {
		for _, ascii := range []bool{false, true} {
			disks, _ := voltest.New(t, false)
			p := draw(t, disks, picture.Columns(width)*3)
			var b bytes.Buffer
			if err := p.WriteText(&b, picture.TextOptions{Width: width, ASCII: ascii}); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			for _, l := range lines[1:] {
				if n := utf8.RuneCountInString(l); n > max(width, 20) && n > 25 {
					t.Errorf("width %d: %d columns: %s", width, n, l)
				}
				if ascii && len(l) != utf8.RuneCountInString(l) {
					t.Errorf("not ASCII: %s", l)
				}
			}
		}
	}
}

// elements counts the elements of a document by name and class, and returns its texts.
func elements(t *testing.T, r io.Reader) (map[string]int, []string) {
	t.Helper()
	d, count, texts := xml.NewDecoder(r), make(map[string]int), []string(nil)
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			count[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "class" {
					count[e.Name.Local+"."+a.Value]++
				}
			}
		case xml.CharData:
			texts = append(texts, string(e))
		}
	}
}

func TestDrawingsAreWellFormed(t *testing.T) {
	p := golden(t, 500)
	p.Name, p.Components[0].Name = `<&">`, "a<b\x1b"
	var svg, alone bytes.Buffer
	if err := errors.Join(p.WriteSVG(&svg), p.WriteMap(&alone)); err != nil {
		t.Fatal(err)
	}
	whole, texts := elements(t, &svg)
	part, _ := elements(t, &alone)
	if whole["g"] != part["g"] || whole["g"] < 10 || whole["g"] > 500 || part["rect.gv-0"] == 0 || part["rect.gv-1"] == 0 || part["rect.gv-2"] != 0 {
		t.Errorf("drawn %v, the map alone %v", whole, part)
	}
	if whole["rect.gv-0"] != part["rect.gv-0"]+1 || whole["rect.gv-empty"] != part["rect.gv-empty"]+3 || part["style"] != 0 {
		t.Errorf("drawn %v, the map alone %v: no bar for each component", whole, part)
	}
	for _, want := range []string{"0 B", "98 MiB", `"a<b\x1b"`} { // the golden volume has 1 GiB
		if !slices.Contains(texts, want) {
			t.Errorf("no %q in %q", want, texts)
		}
	}
	p.Components[0].Name = "a<b" // what a terminal would obey is escaped when it is printed
	js, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back picture.Picture
	if err := json.Unmarshal(js, &back); err != nil || !reflect.DeepEqual(&back, p) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestSizesAreSaidInThePowerThatIsNearest(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 4 << 20: "4 MiB", 10<<30 + 1<<29: "10 GiB", 1<<40 + 1: "1.0 TiB",
		1 << 62: "4 EiB", 1023 << 10: "1023 KiB",
	} {
		if got := picture.Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestLongNamesAreCutSoThatTheBarsFit(t *testing.T) {
	p := golden(t, 64)
	p.Components[1].Name = "/var/db/disks/" + strings.Repeat("deep/", 40) + "dïsk1"
	for _, width := range []int{30, 40, 80} {
		for _, ascii := range []bool{false, true} {
			var b bytes.Buffer
			if err := p.WriteText(&b, picture.TextOptions{Width: width, ASCII: ascii}); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			mark := "…"
			if ascii {
				mark = "..."
			}
			bars := lines[len(lines)-3:]
			for _, l := range bars {
				if n := utf8.RuneCountInString(l); n > width {
					t.Errorf("width %d: %d columns: %s", width, n, l)
				}
			}
			if !strings.HasPrefix(bars[1], mark) || !strings.Contains(bars[1], "sk1 [") {
				t.Errorf("width %d: the end of the name does not show: %s", width, bars[1])
			}
		}
	}
}
