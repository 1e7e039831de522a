package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// These tests let strangers use the server: libnbd's tools, QEMU's and fio.
// They skip where a tool is missing, and fail if GVIRSTOR_REQUIRE_TOOLS=1.

// tool finds a program.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is missing, and GVIRSTOR_REQUIRE_TOOLS=1", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

// run runs a program, which must succeed, and returns what it printed on stdout.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := tool(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// export serves a disk in memory and returns its URI.
func export(t *testing.T, cfg nbdtest.Config) (*nbdtest.Disk, string) {
	t.Helper()
	d := nbdtest.New(cfg)
	s, err := nbd.NewServer(nbd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddExport("disk", d); err != nil {
		t.Fatal(err)
	}
	a := nbd.Address{Network: "unix", Addr: filepath.Join(t.TempDir(), "s")}
	ln, err := nbd.Listen(t.Context(), a, nbd.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		d.Close()
	})
	return d, nbd.URI(a, "disk", false)
}

// image writes a file with data here and there.
func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, off := range []int64{0, 3 << 20, 3<<20 + 12345, size/2 + 512, size - 70000} {
		b := make([]byte, 70000)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func sameFile(t *testing.T, a, b string) {
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
		t.Errorf("%s and %s differ", a, b)
	}
}

func TestNbdinfoSeesWhatIsAdvertised(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		_, uri := export(t, nbdtest.Config{Size: 100 << 20, ReadOnly: readOnly, SectorSize: 4096})
		var info struct {
			Protocol   string
			Structured bool
			Extended   *bool // of those that know of it
			Exports    []map[string]any
		}
		if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", uri)), &info); err != nil {
			t.Fatal(err)
		}
		if info.Protocol != "newstyle-fixed" || !info.Structured || len(info.Exports) != 1 {
			t.Fatalf("nbdinfo: %+v", info)
		}
		if info.Extended != nil && !*info.Extended {
			t.Error("nbdinfo, which asks for extended headers, did not get them")
		}
		for key, want := range map[string]any{
			"export-name": "disk", "export-size": 100.0 * (1 << 20),
			"is_read_only": readOnly, "is_rotational": false,
			"can_flush": true, "can_fua": true, "can_trim": true, "can_zero": true, "can_fast_zero": true,
			"can_cache": true, "can_df": true, "can_multi_conn": true,
			"block_minimum": 1.0, "block_size_minimum": 1.0, "block_preferred": 4096.0, "block_size_preferred": 4096.0,
			"block_maximum": 33554432.0, "block_size_maximum": 33554432.0,
		} {
			if got, ok := info.Exports[0][key]; ok && got != want {
				t.Errorf("%s: %v, want %v", key, got, want)
			} else if !ok && !strings.HasPrefix(key, "block") { // the names of these changed with versions
				t.Errorf("%s is missing", key)
			}
		}
		if got := fmt.Sprint(info.Exports[0]["contexts"]); got != "[base:allocation]" {
			t.Errorf("contexts: %s", got)
		}
	}
}

func TestNbdinfoListsAndMaps(t *testing.T) {
	d, uri := export(t, nbdtest.Config{Size: 10 << 20})
	write(d, 2<<20, []byte("x"))
	write(d, 3<<20, []byte("x"))
	var extents []struct {
		Offset, Length int64
		Type           int
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--map", "--json", uri)), &extents); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(extents); got != "[{0 2097152 3} {2097152 2097152 0} {4194304 6291456 3}]" {
		t.Errorf("map: %s", got)
	}
	if out := run(t, "nbdinfo", "--list", uri); !strings.Contains(out, `export="disk"`) {
		t.Errorf("list: %s", out)
	}
	if out := strings.TrimSpace(run(t, "nbdinfo", "--size", uri)); out != "10485760" {
		t.Errorf("size: %s", out)
	}
}

// write writes to a disk that completes at once.
func write(d *nbdtest.Disk, off int64, b []byte) {
	d.Submit(&virstor.Request{Op: virstor.OpWrite, Offset: off, Length: int64(len(b)), Data: b, Done: ignore{}})
}

type ignore struct{}

func (ignore) Complete(*virstor.Request) {}

func TestNbdcopyThereAndBack(t *testing.T) {
	for _, workers := range []int{0, 3} {
		const size = 24<<20 + 4096
		d, uri := export(t, nbdtest.Config{Size: size, Workers: workers})
		in, out := image(t, size), filepath.Join(t.TempDir(), "out")
		run(t, "nbdcopy", "--flush", in, uri)
		if n := d.Allocated(); n > 6 {
			t.Errorf("a sparse image took %d chunks", n)
		}
		run(t, "nbdcopy", uri, out)
		sameFile(t, in, out)
		run(t, "nbdcopy", "--synchronous", "--allocated", in, uri)
		run(t, "nbdcopy", "--no-extents", uri, out)
		sameFile(t, in, out)
	}
}

func TestQemuIOPatterns(t *testing.T) {
	_, uri := export(t, nbdtest.Config{Size: 64 << 20, Workers: 2})
	out := run(t, "qemu-io", "-f", "raw", uri,
		"-c", "read -P 0 0 32M",
		"-c", "write -P 0x5a 1M 3M",
		"-c", "write -P 0x33 3584k 1k",
		"-c", "write -f -P 0x11 63M 1M",
		"-c", "write -z -u 2M 1M",
		"-c", "write -z 16M 1M",
		"-c", "discard 63M 512k",
		"-c", "flush",
		"-c", "read -P 0x5a 1M 1M",
		"-c", "read -P 0 2M 1M",
		"-c", "read -P 0x5a 3M 512k",
		"-c", "read -P 0x33 3584k 1k",
		"-c", "read -P 0x5a 3585k 511k",
		"-c", "read -P 0 16M 1M",
		"-c", "read -P 0x11 65024k 512k")
	if strings.Contains(out, "Pattern verification failed") || strings.Contains(out, "error") || strings.Contains(out, "failed") {
		t.Errorf("qemu-io:\n%s", out)
	}
	if n := strings.Count("\n"+out, "\nread "); n != 8 {
		t.Errorf("%d reads were done, want 8:\n%s", n, out)
	}
}

func TestQemuImgConvertsComparesAndMaps(t *testing.T) {
	const size = 64 << 20
	dir := t.TempDir()
	in, qcow := image(t, size), filepath.Join(dir, "q")
	d, uri := export(t, nbdtest.Config{Size: size})
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", in, qcow)
	run(t, "qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", "-W", "-m", "8", qcow, uri)
	if n := d.Allocated(); n > 6 {
		t.Errorf("a sparse image took %d chunks", n)
	}
	if out := run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, uri); !strings.Contains(out, "identical") {
		t.Errorf("compare: %s", out)
	}
	back := filepath.Join(dir, "back")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, back)
	sameFile(t, in, back)

	var extents []struct {
		Start, Length int64
		Data, Zero    bool
	}
	if err := json.Unmarshal([]byte(run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)), &extents); err != nil {
		t.Fatal(err)
	}
	holes := int64(0)
	for _, e := range extents {
		if e.Zero && !e.Data {
			holes += e.Length
		}
	}
	if want := size - int64(d.Allocated())<<20; holes != want {
		t.Errorf("map shows %d bytes of holes, want %d: %+v", holes, want, extents)
	}
}

func TestFioVerifies(t *testing.T) {
	for _, workers := range []int{0, 3} {
		for _, rw := range []string{"randwrite", "randrw"} {
			_, uri := export(t, nbdtest.Config{Size: 64 << 20, Workers: workers})
			run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+uri, "--rw="+rw, "--bsrange=512-128k", "--bs_unaligned",
				"--verify=crc32c", "--verify_fatal=1", "--iodepth=32", "--numjobs=4", "--size=6M", "--offset_increment=16M",
				"--fsync=100", "--group_reporting", "--output-format=terse", "--aux-path="+t.TempDir())
		}
	}
}

func TestNoSpaceReachesStrangers(t *testing.T) {
	_, uri := export(t, nbdtest.Config{Size: 64 << 20, Capacity: 2})
	path := tool(t, "qemu-io")
	out, _ := exec.CommandContext(t.Context(), path, "-f", "raw", uri, "-c", "write 0 4M").CombinedOutput()
	if !strings.Contains(string(out), "No space left on device") {
		t.Errorf("qemu-io: %s", out)
	}
}
