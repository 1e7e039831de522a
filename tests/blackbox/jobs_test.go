package blackbox

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// jobCase is a verb that takes long, on a volume of 3 files with 18 chunks of
// data, 6 on each, in the virtual chunks 10 to 27, of which 12, 15, … hold
// zeros.
type jobCase struct {
	kind string
	rate string                 // at which there is time to kill the daemon half way, on a slow machine, too
	args func(s *site) []string // behind the verb's options
	// changed tells, when the job was done, what is not as it should be.
	changed func(s *site, v control.VolumeStatus) string
}

func jobCases() []jobCase {
	component := func(v control.VolumeStatus, name string) int {
		return slices.IndexFunc(v.Components, func(c control.ComponentStatus) bool { return c.Name == name })
	}
	return []jobCase{
		{"evacuate", "4m", func(s *site) []string { return []string{"vol", s.files[0], s.files[1]} },
			func(s *site, v control.VolumeStatus) string {
				if len(v.Components) != 1 || component(v, s.files[2]) != 0 {
					return "components"
				}
				s.files = s.files[2:]
				return ""
			}},
		{"replace", "2m", func(s *site) []string {
			fresh := s.file("fresh", 96*mib)
			s.files = append(s.files, fresh)
			return []string{"vol", s.files[0], fresh}
		}, func(s *site, v control.VolumeStatus) string {
			if len(v.Components) != 3 || component(v, s.files[0]) >= 0 || v.Components[component(v, s.files[3])].ChunksUsed != 2+6 {
				return "components"
			}
			s.files = s.files[1:]
			return ""
		}},
		{"pack", "4m", func(*site) []string { return []string{"vol"} },
			func(_ *site, v control.VolumeStatus) string {
				if v.Components[0].ChunksUsed != 2+18 {
					return "component 0 has not all"
				}
				return ""
			}},
		{"rebalance", "1m", func(s *site) []string {
			fresh := s.file("fresh", 64*mib)
			s.files = append(s.files, fresh)
			s.gvirstor("add", "vol", fresh)
			return []string{"vol"}
		}, func(s *site, v control.VolumeStatus) string {
			if c := v.Components[component(v, s.files[3])]; c.ChunksUsed < 3 {
				return fmt.Sprintf("the new component has %d", c.ChunksUsed)
			}
			return ""
		}},
		{"reclaim", "6m", func(*site) []string { return []string{"vol"} },
			func(_ *site, v control.VolumeStatus) string {
				if v.AllocatedChunks != 12 {
					return "zeros are allocated"
				}
				return ""
			}},
		{"resize", "2m", func(*site) []string { return []string{"-s", "1t", "vol"} }, // 8 MiB of map: chunks must go
			func(_ *site, v control.VolumeStatus) string {
				if v.VirtualSize != tib {
					return "size"
				}
				return ""
			}},
	}
}

// slowly is the rate of jobs that are cancelled: what is asked of one half way has
// seconds.
const slowly = "1m"

// busy labels, serves and fills the volume of a case.
func (c *jobCase) busy(t *testing.T) *site {
	t.Helper()
	s := newSite(t, 64*mib, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--alloc", "spread")
	disk := s.dial()
	for i := int64(10); i < 28; i++ {
		if _, err := disk.WriteAt(c.contents(i), i*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// contents is what virtual chunk i holds.
func (c *jobCase) contents(i int64) []byte {
	b := make([]byte, mib)
	if i%3 != 0 && i >= 10 && i < 28 {
		stamp(b, uint64(i), 1)
	}
	return b
}

// verify reads all of the volume that was ever written, and more.
func (c *jobCase) verify(t *testing.T, s *site) {
	t.Helper()
	disk := s.dial()
	defer disk.Close()
	b := make([]byte, mib)
	for i := int64(8); i < 30; i++ {
		if _, err := disk.ReadAt(b, i*mib); err != nil {
			t.Fatal(err)
		}
		if string(b) != string(c.contents(i)) {
			t.Fatalf("virtual chunk %d is not what was written", i)
		}
	}
}

// halfway waits until the job has moved something.
func (s *site) halfway(kind string) control.JobStatus {
	s.t.Helper()
	var j control.JobStatus
	s.until(kind+" is under way", func() bool {
		if at := s.status().Job; at != nil {
			j = *at
		}
		return j.Done > 0
	})
	if j.Kind != kind {
		s.t.Fatalf("%s is under way", j.Kind)
	}
	return j
}

// handedBack packs and stops the volume, and looks at the raw metadata: what the
// kernel class is to find.
func (s *site) handedBack() {
	s.t.Helper()
	s.gvirstor("pack", "vol")
	if out := s.gvirstor("stop", "-v", "vol"); !strings.Contains(out, "handed back") {
		s.t.Errorf("not handed back after pack: %s", out)
	}
	s.term()
	for _, f := range s.files {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		if m := b[len(b)-512:]; string(m[:13]) != "GEOM::VIRSTOR" || binary.LittleEndian.Uint32(m[16:]) != 1 {
			s.t.Errorf("%s ends in % x", filepath.Base(f), m[:24])
		}
	}
	s.gvirstor(append([]string{"check"}, s.files...)...)
}

func TestAJobGoesOnAfterTheDaemonWasKilled(t *testing.T) {
	for _, c := range jobCases() {
		t.Run(c.kind, func(t *testing.T) {
			s := c.busy(t)
			s.gvirstor(append([]string{c.kind, "-b", "--rate", c.rate}, c.args(s)...)...)
			s.halfway(c.kind)
			s.kill()
			s.start(s.flags...)
			s.said("an interrupted job goes on")
			s.until("it is done", func() bool { return s.status().Job == nil })
			if wrong := c.changed(s, s.status()); wrong != "" {
				t.Fatalf("%s: %+v\n%s", wrong, s.status(), s.log)
			}
			c.verify(t, s)
			s.handedBack()
		})
	}
}

func TestACancelledJobStaysCancelledAndTheVerbGoesOn(t *testing.T) {
	for _, c := range jobCases() {
		t.Run(c.kind, func(t *testing.T) {
			s := c.busy(t)
			args := c.args(s)
			s.gvirstor(append([]string{c.kind, "-b", "--rate", slowly}, args...)...)
			at := s.halfway(c.kind)
			if st := s.status().State; !strings.Contains(st, ", "+c.kind+" ") || !strings.HasSuffix(st, "%") {
				t.Errorf("the state is %q", st)
			}
			if at.Total == 0 || at.Rate == 0 {
				t.Errorf("%+v", at)
			}
			if out := s.gvirstor("cancel", "vol"); !strings.HasPrefix(out, c.kind+" of vol: cancelled") {
				t.Errorf("cancel says %s", out)
			}
			s.kill()
			s.start(s.flags...)
			if j := s.status().Job; j != nil {
				t.Errorf("a cancelled job goes on: %+v", j)
			}
			c.verify(t, s)
			s.gvirstor(append([]string{c.kind}, args...)...)
			if wrong := c.changed(s, s.status()); wrong != "" {
				t.Fatalf("%s: %+v\n%s", wrong, s.status(), s.log)
			}
			c.verify(t, s)
			s.handedBack()
		})
	}
}

func TestAnInterruptedShrinkGoesOnAndIsNotWrittenTo(t *testing.T) {
	s := newSite(t, 512*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	b := make([]byte, mib)
	for i := range int64(300) {
		stamp(b, uint64(i), 1)
		if _, err := c.WriteAt(b, i*2*mib); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	out, err := s.tryGvirstor("resize", "-s", "64m", "vol")
	if err == nil || !strings.Contains(out, "268 chunks, 281018368 bytes, lie beyond") || !strings.Contains(out, "bytes 67108864 to 68157439, bytes 69206016 to") {
		t.Fatalf("a shrink over data: %v: %s", err, out)
	}
	out = s.gvirstor("resize", "-f", "-b", "--rate", "100m", "-s", "64m", "vol")
	if !strings.Contains(out, "would be lost: bytes 67108864 to 68157439") || !strings.Contains(out, "and 260 places more") {
		t.Errorf("what is lost is not named: %s", out)
	}
	s.halfway("resize")
	s.kill()
	s.start()
	// The rest is being given up: nobody is to write there.
	if n := s.dial().Info().Size; n != 64*mib {
		t.Errorf("a volume that is being shrunk is served with %d bytes", n)
	}
	s.until("it is done", func() bool { return s.status().Job == nil })
	v := s.status()
	if v.VirtualSize != 64*mib || v.AllocatedChunks != 32 {
		t.Errorf("size %d, %d chunks\n%s", v.VirtualSize, v.AllocatedChunks, s.log)
	}
	c = s.dial()
	got := make([]byte, mib)
	for i := range int64(32) {
		stamp(b, uint64(i), 1)
		if _, err := c.ReadAt(got, i*2*mib); err != nil || string(got) != string(b) {
			t.Fatalf("chunk %d: %v", 2*i, err)
		}
	}
}

func TestNewConnectionsSeeTheNewSize(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	before := s.dial()
	if n := before.Info().Size; n != gib {
		t.Fatalf("size %d", n)
	}
	s.gvirstor("resize", "-s", "2g", "vol")
	after := s.dial()
	if n := after.Info().Size; n != 2*gib {
		t.Errorf("a connection made after the resize sees %d", n)
	}
	b := make([]byte, 4096)
	stamp(b, 1, 1)
	if _, err := after.WriteAt(b, 2*gib-4096); err != nil {
		t.Errorf("write at the new end: %v", err)
	}
	if _, err := before.ReadAt(b, gib-4096); err != nil {
		t.Errorf("read on a connection from before: %v", err)
	}
	s.gvirstor("resize", "-f", "-s", "512m", "vol")
	if n := s.dial().Info().Size; n != 512*mib {
		t.Errorf("a connection made after the shrink sees %d", n)
	}
	if _, err := after.WriteAt(b, gib); err == nil {
		t.Error("a write beyond the end of a shrunk volume succeeded")
	}
}

func TestReplaceAddsNothingThatIsTooSmall(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	for i := range int64(40) {
		if _, err := c.WriteAt(make([]byte, mib), i*mib); err != nil {
			t.Fatal(err)
		}
	}
	small, large := s.file("small", 32*mib), s.file("large", 48*mib)
	// 40 chunks and 2 of the map on 31, the last one of which has the metadata.
	for _, args := range [][]string{{"-n"}, nil} {
		out, err := s.tryGvirstor(append(append([]string{"replace"}, args...), "vol", s.files[0], small)...)
		if err == nil || !strings.Contains(out, fmt.Sprint(11*mib)+" bytes are missing") {
			t.Errorf("%v: %s", err, out)
		}
		if n := len(s.status().Components); n != 2 {
			t.Errorf("%d components", n)
		}
	}
	if out := s.gvirstor("replace", "-n", "vol", s.files[0], large); !strings.HasPrefix(out, "40 chunks, 41943040 bytes, would be moved") {
		t.Errorf("dry run: %s", out)
	}
	if n := len(s.status().Components); n != 2 {
		t.Errorf("a dry run has added a component")
	}
	s.gvirstor("replace", "vol", s.files[0], large)
}

func TestJobsAreSeenByPrometheus(t *testing.T) {
	cases := jobCases()
	c := cases[slices.IndexFunc(cases, func(c jobCase) bool { return c.kind == "reclaim" })]
	s := c.busy(t)
	s.term()
	s.start("--http", "127.0.0.1:0")
	s.said("http=")
	var url string
	for line := range strings.Lines(s.log.String()) {
		if _, rest, ok := strings.Cut(line, "http="); ok {
			url = "http://" + strings.TrimSpace(rest) + "/metrics"
		}
	}
	scrape := func() string {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	s.gvirstor("reclaim", "-b", "--rate", slowly, "vol")
	s.halfway("reclaim")
	during := scrape()
	s.gvirstor("cancel", "vol")
	s.gvirstor("reclaim", "vol")
	after := scrape()
	for _, l := range []string{`gvirstor_job_running{kind="reclaim",volume="vol"} 1`, `gvirstor_job_size_bytes{volume="vol"} 1.8874368e+07`} {
		if !strings.Contains(during, l+"\n") {
			t.Errorf("no %s while it runs", l)
		}
	}
	for _, l := range []string{`gvirstor_job_running{kind="reclaim",volume="vol"} 0`, `gvirstor_job_done_bytes{volume="vol"} 0`,
		`gvirstor_job_chunks_total{kind="reclaim",volume="vol"} 6`,
		`gvirstor_jobs_ended_total{kind="reclaim",state="cancelled",volume="vol"} 1`,
		`gvirstor_jobs_ended_total{kind="reclaim",state="done",volume="vol"} 1`} {
		if !strings.Contains(after, l+"\n") {
			t.Errorf("no %s afterwards", l)
		}
	}
	for _, l := range []string{"job begins", "job cancelled", "job done"} {
		s.said(l)
	}
}
