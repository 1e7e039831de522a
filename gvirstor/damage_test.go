package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// site is where verbs are let loose on a damaged volume of the files a and b.
// fresh is an empty file, saved a backup made before the damage.
type site struct{ a, b, fresh, saved, dir string }

// onDamaged are all verbs that touch components, each in every mode that reads or
// writes something else. What needs a daemon is not among them.
func onDamaged(s site) [][]string {
	offline := func(args ...string) []string {
		return append([]string{args[0], "--run-dir", s.dir, "--offline", s.a + "," + s.b}, args[1:]...)
	}
	return [][]string{
		{"dump", s.a, s.b}, {"dump", "--json", s.a, s.b},
		{"check", s.a, s.b}, {"check", "-v", s.b}, {"check", "--json", s.b, s.a},
		{"map", s.a, s.b}, {"map", "--json", s.a, s.b}, {"map", "--svg", filepath.Join(s.dir, "svg"), s.a, s.b},
		{"backup", "-f", filepath.Join(s.dir, "new"), s.a, s.b},
		{"repair", s.a, s.b}, {"repair", "--drop", "0", "--keep", "1", s.a, s.b},
		{"repair", "-y", "--run-dir", s.dir, "--save", filepath.Join(s.dir, "undo"), s.a, s.b},
		{"restore", "-n", "--run-dir", s.dir, s.saved, s.a, s.b}, {"restore", "-f", "--run-dir", s.dir, s.saved, s.a, s.b},
		{"restore", "-f", "--in-order", "--run-dir", s.dir, s.saved, s.a, s.b},
		{"expand", "vol", s.b}, {"clear", s.a, s.b}, {"label", "-s", "64m", "-m", "1m", "again", s.a, s.b},
		offline("add", "vol", s.fresh), offline("remove", "vol", s.b), offline("stop", "vol"), offline("destroy", "vol"),
		offline("evacuate", "vol", s.a), offline("replace", "vol", s.a, s.fresh), offline("pack", "vol"), offline("rebalance", "vol"),
		offline("reclaim", "vol"), offline("reclaim", "-n", "vol"), offline("resize", "-s", "128m", "vol"), offline("resize", "-fs", "4m", "vol"),
	}
}

const (
	damagedSize   = 6 << 20
	damagedSector = 512
	damagedMap    = 512 // bytes of the map of 64 chunks
	// Both slots of the extension block, the last 128 KiB of two reserved chunks.
	damagedExtension = 2<<20 - 128<<10
)

// wholeVolume are the images of a volume with data on both components.
func wholeVolume(tb testing.TB, handedBack bool) (images [2][]byte, saved []byte) {
	tb.Helper()
	dir := tb.TempDir()
	var files []string
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, damagedSize), 0o600); err != nil {
			tb.Fatal(err)
		}
		files = append(files, path)
	}
	must := func(args ...string) {
		e, _, stderr := testEnv(args...)
		if run(context.Background(), e) != 0 {
			tb.Fatal(stderr)
		}
	}
	must("label", "-s", "64m", "-m", "1m", "vol", files[0], files[1])
	var ms []virstor.Member
	for _, f := range files {
		p, err := geomlib.Open(f, geomlib.OpenOptions{})
		if err != nil {
			tb.Fatal(err)
		}
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			tb.Fatal(err)
		}
		ms = append(ms, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(ms)[0], virstor.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	for _, vc := range []int64{0, 9, 1, 40} {
		if _, err := v.WriteAt(bytes.Repeat([]byte{byte(vc + 1)}, 4096), vc<<20); err != nil {
			tb.Fatal(err)
		}
	}
	end := v.Close
	if handedBack {
		end = v.Stop
	}
	if err := end(); err != nil {
		tb.Fatal(err)
	}
	must("backup", filepath.Join(dir, "saved"), files[0], files[1])
	for i, f := range append(files, filepath.Join(dir, "saved")) {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		if i == 2 {
			return images, b
		}
		images[i] = b
	}
	return images, saved
}

// piece is what a file holds at a byte.
type piece struct {
	off int64
	b   []byte
}

// pieces are the parts of an image that are not zeros.
func pieces(image []byte) (ps []piece) {
	zeros := make([]byte, 4096)
	for off := 0; off < len(image); off += len(zeros) {
		b := image[off:min(off+len(zeros), len(image))]
		if !bytes.Equal(b, zeros[:len(b)]) {
			ps = append(ps, piece{int64(off), b})
		}
	}
	return ps
}

// damaged writes the volume with other last sectors, map and extension block.
func damaged(tb testing.TB, images [2][]piece, saved, lastA, lastB, entries, ext []byte) site {
	tb.Helper()
	dir := tb.TempDir()
	s := site{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "fresh"), filepath.Join(dir, "saved"), dir}
	atMost := func(b []byte, n int) []byte { return b[:min(len(b), n)] }
	const last = damagedSize - damagedSector
	writeSparse(tb, s.a, damagedSize, images[0], piece{last, atMost(lastA, damagedSector)},
		piece{0, atMost(entries, damagedMap)}, piece{damagedExtension, atMost(ext, 128<<10)})
	writeSparse(tb, s.b, damagedSize, images[1], piece{last, atMost(lastB, damagedSector)})
	writeSparse(tb, s.fresh, damagedSize, nil)
	if err := os.WriteFile(s.saved, saved, 0o600); err != nil {
		tb.Fatal(err)
	}
	return s
}

// writeSparse makes a file of size bytes, holes but for the pieces, the later of which
// are written over the earlier.
func writeSparse(tb testing.TB, path string, size int64, image []piece, more ...piece) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		tb.Fatal(err)
	}
	for _, ps := range [][]piece{image, more} {
		for _, p := range ps {
			if _, err := f.WriteAt(p.b, p.off); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// randomDamage is what may have become of whole: some bytes changed, or all.
func randomDamage(rng *rand.Rand, whole []byte) []byte {
	b := bytes.Clone(whole)
	n := rng.IntN(4)
	if rng.IntN(6) == 0 {
		n = len(b)
	}
	for range n {
		at := rng.IntN(len(b))
		switch rng.IntN(3) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b[at] = byte(rng.IntN(8))
		default:
			b[at] = byte(rng.Uint32())
		}
	}
	return b
}

// FuzzDamagedComponentsCrashNoVerb has every verb work on components whose last
// sectors, map and extension block hold anything. It may fail, with a reason, but
// neither crash nor hang.
func FuzzDamagedComponentsCrashNoVerb(f *testing.F) {
	var images [2][2][]byte // fenced, handed back
	var sparse [2][2][]piece
	var saved [2][]byte
	for i, handedBack := range []bool{false, true} {
		images[i], saved[i] = wholeVolume(f, handedBack)
		sparse[i] = [2][]piece{pieces(images[i][0]), pieces(images[i][1])}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for verb := range onDamaged(site{}) {
		for k := range 6 {
			im := images[k%2]
			last := func(i int) []byte { return im[i][damagedSize-damagedSector:][:92] }
			a, b := randomDamage(rng, last(0)), randomDamage(rng, last(1))
			if k == 4 { // each other's
				a, b = last(1), last(0)
			}
			ext := im[0][damagedExtension:][:512]
			f.Add(uint8(verb), k%2 == 1, a, b, randomDamage(rng, im[0][:damagedMap]), randomDamage(rng, ext))
		}
	}
	f.Fuzz(func(t *testing.T, verb uint8, handedBack bool, lastA, lastB, entries, ext []byte) {
		i := 0
		if handedBack {
			i = 1
		}
		s := damaged(t, sparse[i], saved[i], lastA, lastB, entries, ext)
		verbs := onDamaged(s)
		args := verbs[int(verb)%len(verbs)]
		e, stdout, stderr := testEnv(args...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		status := run(ctx, e)
		told := fmt.Sprintf("gvirstor %q: %d\n%s%s", args, status, stdout, stderr)
		switch {
		case status != 0 && status != 1, ctx.Err() != nil:
			t.Error(told)
		case status == 1 && stdout.Len()+stderr.Len() == 0:
			t.Errorf("no reason: %s", told)
		}
	})
}
