package blackbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

func TestNbdinfoSeesTheFlagsThatAreServed(t *testing.T) {
	need(t, "nbdinfo")
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1t")
	s.start()
	var info struct {
		Exports []map[string]any `json:"exports"`
	}
	if err := json.Unmarshal([]byte(command(t, "nbdinfo", "--json", s.uri())), &info); err != nil {
		t.Fatal(err)
	}
	e := info.Exports[0]
	for _, flag := range []string{"can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"} {
		if e[flag] != true {
			t.Errorf("%s is %v", flag, e[flag])
		}
	}
	if e["is_read_only"] != false || e["export-size"] != float64(tib) {
		t.Errorf("read-only %v, size %v", e["is_read_only"], e["export-size"])
	}
	if got := fmt.Sprint(e["contexts"]); got != "[base:allocation]" {
		t.Errorf("contexts %s", got)
	}
}

// image writes a file with data in some places and holes elsewhere.
func image(t *testing.T, path string, size int64, at ...int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, uint64(size)))
	for _, off := range at {
		b := make([]byte, 300000)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-off)], off); err != nil {
			t.Fatal(err)
		}
	}
}

func same(t testing.TB, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Fatalf("%s and %s differ", a, b)
	}
}

func TestNbdcopyBothWaysAllocatesOnlyWhatHoldsData(t *testing.T) {
	need(t, "nbdcopy")
	s := newSite(t, 64*mib, 128*mib)
	s.label("-s", "512m", "-m", "1m")
	s.start()
	src, dst := filepath.Join(s.dir, "src"), filepath.Join(s.dir, "dst")
	image(t, src, 512*mib, 0, 100*mib+17, 300*mib, 511*mib+700000)
	command(t, "nbdcopy", "--flush", src, s.uri())
	command(t, "nbdcopy", s.uri(), dst)
	same(t, src, dst)
	// Four places of 300 kB touch at most two chunks of 1 MiB each.
	if n := s.status().AllocatedChunks; n < 4 || n > 8 {
		t.Errorf("%d chunks allocated for four places with data", n)
	}
}

func TestQemuImgConvertsToAndFrom(t *testing.T) {
	need(t, "qemu-img")
	s := newSite(t, 128*mib, 128*mib)
	s.label("-s", "256m", "-m", "1m")
	s.start()
	raw, qcow, back := filepath.Join(s.dir, "raw"), filepath.Join(s.dir, "q.qcow2"), filepath.Join(s.dir, "back")
	image(t, raw, 256*mib, 4096, 77*mib, 200*mib)
	command(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, s.uri())
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, s.uri())
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", s.uri(), qcow)
	command(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow, raw)
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri(), back)
	same(t, raw, back)

	// From qcow2, over what is there: all of it is replaced.
	other, second := filepath.Join(s.dir, "other"), filepath.Join(s.dir, "o.qcow2")
	image(t, other, 256*mib, 12345, 78*mib, 255*mib)
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", other, second)
	command(t, "qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", second, s.uri())
	command(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", second, s.uri())
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri(), back)
	same(t, other, back)

	var extents []struct {
		Start, Length int64
		Data, Zero    bool
	}
	out := command(t, "qemu-img", "map", "--output=json", "-f", "raw", s.uri())
	if err := json.Unmarshal([]byte(out), &extents); err != nil {
		t.Fatal(err)
	}
	holes := int64(0)
	for _, e := range extents {
		if !e.Data && e.Zero {
			holes += e.Length
		}
	}
	if holes < 240*mib {
		t.Errorf("qemu-img map shows %d bytes of holes:\n%s", holes, out)
	}
}

func TestQemuIoPatterns(t *testing.T) {
	need(t, "qemu-io")
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	out := command(t, "qemu-io", "-f", "raw",
		"-c", "write -P 0xab 0 64k",
		"-c", "write -P 0xcd 1048064 1024",
		"-c", "read -P 0xab 0 64k",
		"-c", "read -P 0xcd 1048064 1024",
		"-c", "read -P 0 65536 900k",
		"-c", "write -z 4096 4096",
		"-c", "read -P 0 4096 4096",
		"-c", "read -P 0xab 8192 57344",
		"-c", "discard 0 1m",
		"-c", "read -P 0 0 1048064",
		"-c", "write -f -P 0x11 512m 4k",
		"-c", "flush",
		"-c", "read -P 0x11 512m 4k", s.uri())
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		t.Fatal(out)
	}
}

// fio runs one job over the export.
func fio(t *testing.T, s *site, args ...string) string {
	t.Helper()
	args = append([]string{"--name=job", "--ioengine=nbd", "--uri=" + s.uri(), "--output-format=normal"}, args...)
	return command(t, "fio", args...)
}

func TestFioVerifiesOverSeveralConnections(t *testing.T) {
	need(t, "fio")
	s := newSite(t, 128*mib, 128*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--alloc", "spread")
	fio(t, s, "--rw=randwrite", "--bs=4k-64k", "--size=32m", "--offset_increment=64m", "--numjobs=4", "--group_reporting",
		"--iodepth=16", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1")
}

func TestA4KSectorVolumeTakes512ByteWrites(t *testing.T) {
	need(t, "fio")
	s := newSite(t, 64*mib, 64*mib)
	s.label("--sector-size", "4096", "-s", "1g", "-m", "1m")
	s.start()
	if got := s.status().SectorSize; got != 4096 {
		t.Fatalf("sector size %d", got)
	}
	fio(t, s, "--rw=randwrite", "--bs=512", "--size=1m", "--numjobs=2", "--offset_increment=1m", "--iodepth=16",
		"--verify=crc32c", "--do_verify=1", "--verify_fatal=1")
}
