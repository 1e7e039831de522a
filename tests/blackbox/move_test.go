package blackbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// verifyThrough runs fio's verify over the export while do changes the volume.
func verifyThrough(t *testing.T, s *site, do func()) {
	t.Helper()
	verifyAllThrough(t, s, []string{s.name}, do)
}

// verifyAllThrough is verifyThrough of several volumes at once.
func verifyAllThrough(t *testing.T, s *site, names []string, do func()) {
	t.Helper()
	need(t, "fio")
	var loads []*exec.Cmd
	outs := make([]strings.Builder, len(names))
	for i, name := range names {
		load := exec.Command("fio", "--name=through", "--ioengine=nbd", "--uri="+s.uriOf(name), "--rw=randwrite", "--bs=4k-64k",
			"--size=24m", "--offset_increment=32m", "--numjobs=2", "--group_reporting", "--iodepth=8", "--loops=100", "--time_based", "--runtime=6",
			"--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_backlog=256")
		load.Stdout, load.Stderr = &outs[i], &outs[i]
		if err := load.Start(); err != nil {
			t.Fatal(err)
		}
		loads = append(loads, load)
	}
	s.until("the load has begun", func() bool { return s.status().AllocatedChunks > 4 })
	do()
	for i, load := range loads {
		if err := load.Wait(); err != nil {
			t.Fatalf("fio on %s: %v\n%s", names[i], err, outs[i].String())
		}
	}
}

// digest is a checksum of all that an export holds.
func (s *site) digest(export string) string {
	s.t.Helper()
	c, err := nbdclient.Dial(s.t.Context(), s.uriOf(export), nbdclient.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Abort()
	sum, b := sha256.New(), make([]byte, mib)
	for off := int64(0); off < c.Info().Size; off += mib {
		if _, err := c.ReadAt(b, off); err != nil {
			s.t.Fatal(err)
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// The components of three volumes, of which one is a clone, are replaced and leave under
// load of all of them, through a death of the daemon, and nothing of them or of a snapshot
// is another thing then, nor in what a backup restores.
func TestDisksOfThreeVolumesLeaveAndComeUnderLoad(t *testing.T) {
	s := newSite(t, 96*mib, 96*mib, 96*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start("--alloc", "spread")
	s.gvirstor("create", "-s", "64m", "vol/web")
	verifyThrough(t, s, func() {})
	s.gvirstor("snapshot", "vol@monday")
	s.gvirstor("clone", "vol@monday", "vol/copy")
	monday := s.digest("vol@monday")
	volumes := []string{"vol", "vol/web", "vol/copy"}
	fresh := s.file("fresh", 120*mib)
	verifyAllThrough(t, s, volumes, func() {
		s.gvirstor("replace", "-v", "vol", s.files[0], fresh)
		s.gvirstor("evacuate", "-v", "vol", s.files[1])
		s.gvirstor("pack", "vol")
		s.gvirstor("rebalance", "vol")
	})
	held := make(map[string]string)
	for _, name := range append(volumes, "vol@monday") {
		held[name] = s.digest(name)
	}
	if held["vol@monday"] != monday {
		t.Error("the snapshot is another one")
	}
	again := s.file("again", 120*mib)
	s.gvirstor("replace", "-b", "--rate", "8m", "vol", fresh, again)
	s.until("some is moved", func() bool { j := s.status().Job; return j != nil && j.Chunks > 4 })
	s.kill()
	s.files = []string{s.files[2], fresh, again}
	s.start("--alloc", "spread")
	s.until("the replacement is done", func() bool {
		st := s.status()
		return len(st.Components) == 2 && (st.Job == nil || st.Job.State == "done")
	})
	for name, want := range held {
		if s.digest(name) != want {
			t.Errorf("%s is another one", name)
		}
	}
	s.term()
	s.files = []string{s.files[0], again}
	if out := s.gvirstor(append([]string{"check"}, s.files...)...); !strings.Contains(out, "No errors") {
		t.Errorf("check: %s", out)
	}
	file := filepath.Join(s.dir, "kept")
	s.gvirstor(append([]string{"backup", file}, s.files...)...)
	zero, err := os.OpenFile(again, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = zero.WriteAt(make([]byte, mib), 0) // the first volume's map, or that of another
	if err := errors.Join(err, zero.Close()); err != nil {
		t.Fatal(err)
	}
	s.gvirstor(append([]string{"restore", file}, s.files...)...)
	s.start("--alloc", "spread")
	for name, want := range held {
		if s.digest(name) != want {
			t.Errorf("%s is another one when it was restored", name)
		}
	}
}

func TestDisksLeaveAndComeUnderLoad(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib, 64*mib)
	s.label("-s", "128m", "-m", "1m")
	s.start("--alloc", "spread")
	verifyThrough(t, s, func() {
		s.gvirstor("evacuate", "-v", "vol", s.files[1])
		fresh := s.file("fresh", 96*mib)
		s.gvirstor("replace", "-v", "vol", s.files[0], fresh)
		s.gvirstor("rebalance", "vol")
		s.gvirstor("pack", "vol")
		s.gvirstor("reclaim", "vol")
		s.gvirstor("resize", "-s", "512m", "vol")
		s.gvirstor("resize", "-s", "400g", "vol") // beyond the room behind the map
		s.gvirstor("resize", "-s", "512m", "vol")
	})
	v := s.status()
	if len(v.Components) != 2 || v.VirtualSize != 512*mib {
		t.Fatalf("components %+v, size %d", v.Components, v.VirtualSize)
	}
	for _, c := range v.Components {
		if c.Name == s.files[0] || c.Name == s.files[1] {
			t.Errorf("%s is still there", c.Name)
		}
	}
	s.files = []string{s.files[2], filepath.Join(s.dir, "fresh")}
	s.gvirstor("pack", "vol")
	out := s.gvirstor("stop", "-v", "vol")
	if !strings.Contains(out, "handed back") {
		t.Errorf("not handed back after pack: %s", out)
	}
	s.term()
	s.start()
	if n := s.status().VirtualSize; n != 512*mib {
		t.Errorf("size %d after a restart", n)
	}
}

func TestEvacuateRefusesWithTheBytesThatAreMissing(t *testing.T) {
	s := newSite(t, 16*mib, 32*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	b := make([]byte, mib)
	for i := range int64(30) {
		if _, err := c.WriteAt(b, i*mib); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.tryGvirstor("evacuate", "vol", s.files[1])
	// 13 chunks on the first, beside the map's two, and the other 17 on the
	// second, which would have to go; a component has its metadata too.
	if err == nil || !strings.Contains(out, fmt.Sprintf("%d bytes are missing (a new component of %d bytes would do)", 17*mib, 17*mib+512)) {
		t.Fatalf("%v: %s", err, out)
	}
	s.gvirstor("add", "vol", s.file("less", 16*mib+512))
	out, err = s.tryGvirstor("evacuate", "vol", s.files[1])
	if err == nil || !strings.Contains(out, fmt.Sprintf(" %d bytes are missing", mib)) {
		t.Fatalf("%v: %s", err, out)
	}
	s.gvirstor("remove", "vol", filepath.Join(s.dir, "less"))
	s.gvirstor("add", "vol", s.file("enough", 17*mib+512))
	s.gvirstor("evacuate", "vol", s.files[1])
}

func TestTrimmedAndZeroSpaceComesBack(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	b := make([]byte, mib)
	for i := range b {
		b[i] = 1
	}
	for i := range int64(20) {
		if _, err := c.WriteAt(b, i*mib); err != nil {
			t.Fatal(err)
		}
	}
	blocks := func() int64 {
		out := command(t, "du", "-k", s.files[0])
		return int64(atoi(t, strings.Fields(out)[0]))
	}
	full := blocks()
	// In pieces: the chunk goes when the last piece has.
	for off := int64(0); off < mib; off += 65536 {
		if err := c.Trim(off, 65536, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Trim(5*mib, 4*mib, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	s.until("trimmed chunks are free", func() bool { return s.status().AllocatedChunks == 15 })
	s.until("the file has given blocks back", func() bool { return blocks() < full-4000 })
	if _, err := c.WriteAt(make([]byte, 2*mib), 10*mib); err != nil {
		t.Fatal(err)
	}
	if out := s.gvirstor("reclaim", "-n", "vol"); !strings.HasPrefix(out, "2 chunks") {
		t.Errorf("dry run: %s", out)
	}
	if out := s.gvirstor("reclaim", "vol"); !strings.HasPrefix(out, "2 chunks") {
		t.Errorf("reclaim: %s", out)
	}
	if n := s.status().AllocatedChunks; n != 13 {
		t.Errorf("%d chunks after reclaim", n)
	}
	got := make([]byte, 20*mib)
	if _, err := c.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for i, x := range got {
		chunk := i / mib
		want := byte(1)
		if chunk == 0 || chunk >= 5 && chunk < 9 || chunk == 10 || chunk == 11 {
			want = 0
		}
		if x != want {
			t.Fatalf("byte %d is %d", i, x)
		}
	}
	c.Close()
	s.gvirstor("pack", "vol")
	if out := s.gvirstor("stop", "-v", "vol"); !strings.Contains(out, "handed back") {
		t.Errorf("not handed back after pack: %s", out)
	}
}

func TestZerosThatAreDetectedTakeNoSpace(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--detect-zeroes")
	c := s.dial()
	b := make([]byte, 3*mib)
	for i := range b {
		b[i] = 1
	}
	write := func(p []byte, off int64) {
		t.Helper()
		if _, err := c.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	write(b, 0)
	zeros := make([]byte, 8*mib)
	write(zeros, 100*mib)       // never allocated
	write(zeros[:mib/2], mib/2) // a half of chunk 0
	write(zeros[:mib], mib)     // chunk 1 goes
	if n := s.status().AllocatedChunks; n != 2 {
		t.Errorf("%d chunks are allocated, want 2", n)
	}
	zeros[5*mib] = 9 // data to the end of it
	write(zeros[:6*mib], 200*mib)
	if n := s.status().AllocatedChunks; n != 8 {
		t.Errorf("%d chunks are allocated after 6 with a byte of data, want 8", n)
	}
	got := make([]byte, 3*mib)
	if _, err := c.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for i, x := range got {
		want := byte(1)
		if i >= mib/2 && i < 2*mib {
			want = 0
		}
		if x != want {
			t.Fatalf("byte %d is %d", i, x)
		}
	}
	c.Close()
	s.term()
	s.start() // without the option zeros take space
	c = s.dial()
	if _, err := c.WriteAt(zeros[:mib], 300*mib); err != nil {
		t.Fatal(err)
	}
	if n := s.status().AllocatedChunks; n != 9 {
		t.Errorf("%d chunks are allocated, want 9", n)
	}
}

func TestAGrownProviderIsExpanded(t *testing.T) {
	s := newSite(t, 32*mib, 32*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	b := make([]byte, mib)
	stamp(b, 3, 4)
	if _, err := c.WriteAt(b, 700*mib); err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.gvirstor("stop", "vol")
	s.term()
	if err := os.Truncate(s.files[1], 96*mib); err != nil {
		t.Fatal(err)
	}
	out := s.gvirstor("expand", "-v", "vol", s.files[1])
	if !strings.Contains(out, "has 95 chunks now, 31 before") {
		t.Errorf("expand says %s", out)
	}
	s.start()
	c = s.dial()
	got := make([]byte, mib)
	if _, err := c.ReadAt(got, 700*mib); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(b) {
		t.Fatal("data lost in expand")
	}
	if n := s.status().FreeChunks; n != 29+95-1 {
		t.Errorf("%d free chunks", n)
	}
}
