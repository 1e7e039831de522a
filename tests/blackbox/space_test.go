package blackbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// fill has fio write and verify size bytes, slowly enough for each level to be
// seen by itself. The returned function waits for it.
func (s *site) fill(size string) func() {
	s.t.Helper()
	need(s.t, "fio")
	load := exec.Command("fio", "--name=fill", "--ioengine=nbd", "--uri="+s.uri(), "--rw=write", "--bs=256k", "--size="+size,
		"--iodepth=4", "--thinktime=4ms", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0")
	load.Dir = s.dir
	var out strings.Builder
	load.Stdout, load.Stderr = &out, &out
	if err := load.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- load.Wait() }()
	s.t.Cleanup(func() { _ = load.Process.Kill() })
	return func() {
		s.t.Helper()
		select {
		case err := <-done:
			if err != nil {
				s.t.Fatalf("fio: %v\n%s\n%s", err, out.String(), s.log)
			}
		case <-time.After(patience):
			s.t.Fatalf("fio does not end\n%s", s.log)
		}
	}
}

// hookFile is where the alert command of hookFlags writes.
func (s *site) hookFile() string { return filepath.Join(s.dir, "alerts") }

func (s *site) hookFlags() []string {
	return []string{"--on-alert", "cat >>" + s.hookFile(), "--http", "127.0.0.1:0"}
}

// alerts are those that the command got.
func (s *site) alerts() []space.Alert {
	s.t.Helper()
	f, err := os.Open(s.hookFile())
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	var as []space.Alert
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var a space.Alert
		if json.Unmarshal(sc.Bytes(), &a) != nil {
			break // being written
		}
		as = append(as, a)
	}
	return as
}

func levels(as []space.Alert, recovered bool) []string {
	var ls []string
	for _, a := range as {
		if a.Recovered == recovered {
			ls = append(ls, string(a.Level))
		}
	}
	return ls
}

var httpAddr = regexp.MustCompile(`http=(127\.0\.0\.1:\d+)`)

// page is what the process that serves answers for path, over a connection of which
// nothing stays.
func (s *site) page(path string) string {
	s.t.Helper()
	s.said("http=")
	all := httpAddr.FindAllStringSubmatch(s.log.String(), -1)
	if len(all) == 0 {
		s.t.Fatalf("the log does not tell where metrics are:\n%s", s.log)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + all[len(all)-1][1] + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// scrape reads the metrics by Prometheus' own parser.
func (s *site) scrape() map[string]*dto.MetricFamily {
	s.t.Helper()
	text := strings.NewReader(s.page("/metrics"))
	p := expfmt.NewTextParser(model.UTF8Validation)
	fs, err := p.TextToMetricFamilies(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return fs
}

// figure is the value of the one series that has the label values.
func figure(t testing.TB, fs map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range fs[name].GetMetric() {
		var have []string
		for _, l := range m.Label {
			have = append(have, l.GetValue())
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no series %s of %v", name, labels)
	return 0
}

// readLatency is the median time of 4 KiB reads of the first chunk.
func (s *site) readLatency(n int) time.Duration {
	s.t.Helper()
	c := s.dial()
	defer c.Close()
	b := make([]byte, 4096)
	var times []time.Duration
	for i := range n {
		begin := time.Now()
		if _, err := c.ReadAt(b, int64(i%200)*4096); err != nil {
			s.t.Fatal(err)
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[n/2]
}

func TestFillingAVolumeIsToldInTimeWritesWaitAndAddLetsThemGoOn(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start(append(s.hookFlags(), "--alert-chunks", "30")...)
	wait := s.fill("220m")
	s.until("some data is there", func() bool { return s.status().AllocatedChunks > 10 })
	before := s.readLatency(2000)
	s.until("writes are held", func() bool { return s.status().Held.Count > 0 })
	s.until("the last level is told", func() bool { return slices.Contains(levels(s.alerts(), false), "full") })

	// 61 chunks, of which the first 2 of 63 hold the map, and twice 63.
	want := []struct {
		level string
		value int64
		text  string
	}{
		{"chunks", 30, "Component %0 of vol is running out of free space (30 chunks left)"},
		{"components", 1, "Device vol running out of components (switching to 2/3: %1)"},
		{"chunks", 30, "Component %1 of vol is running out of free space (30 chunks left)"},
		{"components", 0, "Device vol running out of components (switching to 3/3: %2)"},
		{"percent-80", 80, "level 80%"},
		{"chunks", 30, "Component %2 of vol is running out of free space (30 chunks left)"},
		{"percent-90", 90, "level 90%"},
		{"percent-95", 95, "level 95%"},
		{"full", 0, "GEOM_VIRSTOR[1]: All physical space allocated for vol"},
	}
	as := s.alerts()
	if len(as) != len(want) {
		t.Fatalf("told %q, %d levels are crossed", levels(as, false), len(want))
	}
	for i, w := range want {
		a := as[i]
		text := w.text
		for n, f := range s.files {
			text = strings.ReplaceAll(text, fmt.Sprintf("%%%d", n), f)
		}
		// A group commit can cross a level by more than one chunk.
		near := a.Value <= w.value && a.Value > w.value-4
		if strings.HasPrefix(w.level, "percent") {
			near = a.Value >= w.value && a.Value < w.value+4
		}
		if !near {
			t.Errorf("alert %d: value %d, want %d", i, a.Value, w.value)
		}
		text = strings.ReplaceAll(text, "(30 chunks", fmt.Sprintf("(%d chunks", a.Value))
		if string(a.Level) != w.level || !strings.Contains(a.Text, text) || a.Recovered {
			t.Errorf("alert %d is %s %q, want %s %q", i, a.Level, a.Text, w.level, text)
		}
		quoted := strings.ReplaceAll(a.Text, `"`, `\"`)
		s.said(quoted)
		if n := strings.Count(s.log.String(), quoted); n != 1 {
			t.Errorf("%q is %d times in the log", a.Text, n)
		}
	}
	if last := as[len(as)-1]; last.PhysicalBytes != 187*mib || last.FreeBytes != 0 || last.UsedPercent != 100 {
		t.Errorf("facts at the end: %+v", last)
	}

	v := s.status()
	if !strings.Contains(v.State, "full") || v.Held.Bytes == 0 || len(v.Alerts) == 0 {
		t.Errorf("state %q, held %+v, %d alerts", v.State, v.Held, len(v.Alerts))
	}
	full := s.scrape()
	if n := figure(t, full, "gvirstor_held_writes", "vol"); n < 1 {
		t.Errorf("%v held writes in the metrics", n)
	}
	for level, n := range map[string]float64{"chunks": 3, "components": 2, "percent-80": 1, "percent-90": 1, "percent-95": 1, "full": 1} {
		if got := figure(t, full, "gvirstor_alerts_total", "vol", level); got != n {
			t.Errorf("%v alerts of %s in the metrics, want %v", got, level, n)
		}
	}
	during := s.readLatency(2000)
	t.Logf("median 4 KiB read: %s while filling, %s while writes are held (ratio %.2f)", before, during, float64(during)/float64(before))
	if during > 10*before && during > 100*time.Millisecond {
		t.Errorf("reads take %s while writes are held, %s before", during, before)
	}
	// An overwrite and a flush beside the held writes. The same data, since fio
	// verifies it.
	c := s.dial()
	b := make([]byte, 65536)
	if _, err := c.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}

	fresh := s.file("fresh", 512*mib)
	s.gvirstor("add", "vol", fresh)
	wait()
	s.until("recovery is told", func() bool { return slices.Contains(levels(s.alerts(), true), "full") })
	back := levels(s.alerts(), true)
	slices.Sort(back)
	if got := strings.Join(back, " "); got != "full percent-80 percent-90 percent-95" {
		t.Errorf("recovery is told of %s", got)
	}
	if n := len(levels(s.alerts(), false)); n > len(want)+1 { // switching to 4/4
		t.Errorf("told again: %q", levels(s.alerts(), false))
	}
	if v := s.status(); v.Held.Count != 0 || strings.Contains(v.State, "low") || strings.Contains(v.State, "full") {
		t.Errorf("state %q, %d held", v.State, v.Held.Count)
	}
}

// growing returns what allocates one chunk more each time. A prediction ends soon after
// the growth does, and is to be looked at while that goes on.
func (s *site) growing(c *nbdclient.Conn) (grow func()) {
	off := int64(0)
	return func() {
		s.t.Helper()
		if _, err := c.WriteAt([]byte("a new chunk"), off); err != nil {
			s.t.Fatal(err)
		}
		off += mib
	}
}

func TestTheTimeUntilTheVolumeIsFullIsPredictedAndTold(t *testing.T) {
	s := newSite(t, 8<<30)
	s.label("-s", "1t", "-m", "1m")
	s.start(append(s.hookFlags(), "--alert-window", "2s")...)
	grow := s.growing(s.dial())
	s.until("the prediction is told", func() bool {
		grow()
		return slices.Contains(levels(s.alerts(), false), "time-to-full")
	})
	as := s.alerts()
	if a := as[0]; len(as) != 1 || a.Threshold != 86400 || a.Value != a.SecondsToFull || a.Value < 0 || a.Value >= 86400 ||
		!strings.Contains(a.Text, "Device vol will be full in ") {
		t.Errorf("told %+v", as)
	}
	s.until("the status and the metrics tell it", func() bool {
		grow()
		v, secs := s.status(), figure(t, s.scrape(), "gvirstor_volume_predicted_full_seconds", "vol")
		return v.SecondsToFull != nil && strings.Contains(v.State, "low on space") && secs >= 0 && secs < 86400
	})
	s.until("the end of growth is told", func() bool { return slices.Contains(levels(s.alerts(), true), "time-to-full") })
	if v := s.status(); v.SecondsToFull != nil || strings.Contains(v.State, "low on space") {
		t.Errorf("afterwards: state %q, predicted %v", v.State, v.SecondsToFull)
	}
}

func TestTheTimeUntilAVolumeHasItsQuotaIsPredicted(t *testing.T) {
	s := newSite(t, 8<<30)
	s.label("-s", "1t", "-m", "1m")
	s.start("--alert-window", "2s", "--http", "127.0.0.1:0")
	s.gvirstor("create", "-s", "1t", "--quota", "4g", "vol/web")
	grow := s.growing(s.dialName("vol/web"))
	s.name = "vol"
	s.until("the prediction is there", func() bool {
		grow()
		return s.status().Volumes[0].SecondsToFull != nil
	})
	s.until("the list and the metrics tell it", func() bool {
		grow()
		out, secs := s.gvirstor("list", "vol"), figure(t, s.scrape(), "gvirstor_further_predicted_full_seconds", "vol/web")
		return strings.Contains(out, " of a quota of 4294967296, which it has in ") && secs >= 0 && secs < 86400
	})
	s.until("the end of growth is seen", func() bool { return s.status().Volumes[0].SecondsToFull == nil })
}

func TestASpareIsAddedUnattendedAndAFailingOneIsNamed(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start(s.hookFlags()...)
	bad, good, later := s.file("bad", 64*mib), s.file("good", 64*mib), s.file("later", 128*mib)
	s.gvirstor("spare", "vol", bad, good, later)
	if out, err := s.tryGvirstor("spare", "vol", s.files[1]); err == nil {
		t.Errorf("a component becomes a spare: %s", out)
	}
	if out := s.gvirstor("spare", "vol"); strings.Count(out, "\n") != 3 {
		t.Errorf("spares: %s", out)
	}
	// Somebody writes over the label of the first.
	f, err := os.OpenFile(bad, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 512), 64*mib-512); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s.fill("200m")()
	s.until("both are counted", func() bool { return s.status().SparesAdded >= 2 }) // which is when writes go on already
	v := s.status()
	if len(v.Components) != 4 || v.Components[2].Name != good || v.Components[3].Name != later || v.SparesAdded != 2 {
		t.Fatalf("components %+v, %d spares added\n%s", v.Components, v.SparesAdded, s.log)
	}
	if len(v.Spares) != 1 || v.Spares[0].Name != bad || v.Spares[0].Failed == "" {
		t.Errorf("spares %+v", v.Spares)
	}
	s.until("the failure is told", func() bool { return slices.Contains(levels(s.alerts(), false), "spare-failed") })
	as := s.alerts()
	i := slices.IndexFunc(as, func(a space.Alert) bool { return a.Level == space.SpareFailed })
	if as[i].Component != bad {
		t.Errorf("told of %+v", as[i])
	}
	fs := s.scrape()
	if added, failed := figure(t, fs, "gvirstor_spares_added_total", "vol"), figure(t, fs, "gvirstor_spare_failures_total", "vol"); added != 2 || failed != 1 {
		t.Errorf("metrics tell of %v added, %v failed", added, failed)
	}
	if full := figure(t, fs, "gvirstor_alerts_total", "vol", "full"); full != 0 {
		t.Logf("the volume was full for a moment, %v times", full)
	}

	// What was added is a component, what is labelled is a spare, after a restart.
	third := s.file("third", 64*mib)
	s.gvirstor("spare", "vol", third)
	s.term()
	s.start(append(s.hookFlags(), "--spare", "vol="+good, "--spare", "vol="+later, "--spare", "vol="+third, "--spare", "vol="+third)...)
	s.until("the spare is found", func() bool { return len(s.status().Spares) == 1 })
	if v := s.status(); len(v.Components) != 4 || v.Spares[0].Name != third || v.Spares[0].Failed != "" {
		t.Errorf("components %+v, spares %+v", v.Components, v.Spares)
	}
	s.gvirstor("spare", "-r", "vol", third)
	if v := s.status(); len(v.Spares) != 0 {
		t.Errorf("spares %+v", v.Spares)
	}
}

func TestASpareThatWasAwayIsNamedAndUsedOnceItIsBack(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	spare := s.file("spare", 64*mib)
	s.gvirstor("spare", "vol", spare)
	s.term()
	if err := os.Rename(spare, spare+".away"); err != nil {
		t.Fatal(err)
	}
	s.start(append(s.hookFlags(), "--spare", "vol="+spare)...)
	s.until("the spare is missed", func() bool { return slices.Contains(levels(s.alerts(), false), "spare-failed") })
	if as := s.alerts(); len(as) != 1 || as[0].Component != spare {
		t.Errorf("told %+v", as)
	}
	if out := s.gvirstor("list"); !strings.Contains(out, "Spare: "+spare+"  failed: ") {
		t.Errorf("list does not tell of it:\n%s", out)
	}
	if err := os.Rename(spare+".away", spare); err != nil {
		t.Fatal(err)
	}
	s.fill("140m")() // 61 + 63 chunks, and some of the spare's
	s.until("it is counted", func() bool { return s.status().SparesAdded > 0 })
	if v := s.status(); len(v.Components) != 3 || v.Components[2].Name != spare || len(v.Spares) != 0 || v.SparesAdded != 1 {
		t.Errorf("components %+v, spares %+v\n%s", v.Components, v.Spares, s.log)
	}
}

func TestAVolumeGrowsByFilesUnattendedUpToTheLimitAndTheReserveIsTheWayOut(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	dir := filepath.Join(s.dir, "pool")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	flags := append(s.hookFlags(), "--grow", "vol="+dir+":64m", "--grow-max", "128m", "--reserve", "8")
	s.start(flags...)
	wait := s.fill("250m") // 61 + 63 + 2 * 63 chunks, less the reserve: 242
	s.until("all that may be added is, and writes are held", func() bool {
		v := s.status()
		return v.Held.Count > 0 && v.SparesAdded >= 2 && v.FreeChunks <= 8 // some are held until a file is added, too
	})
	if v := s.status(); len(v.Components) != 4 || v.SparesAdded != 2 || v.FreeChunks != 8 || !strings.Contains(v.State, "full") {
		t.Fatalf("components %+v, %d added, %d free, state %q\n%s", v.Components, v.SparesAdded, v.FreeChunks, v.State, s.log)
	}
	s.until("the end of growth is told", func() bool { return slices.Contains(levels(s.alerts(), false), "spares-out") })
	if got := levels(s.alerts(), false); !slices.Contains(got, "spare-failed") {
		t.Errorf("told %q", got)
	}
	s.gvirstor("reserve", "--release", "vol")
	wait()
	if v := s.status(); v.FreeChunks != 0 || v.ReservedChunks != 0 || v.Held.Count != 0 {
		t.Errorf("%d free, %d reserved, %d held", v.FreeChunks, v.ReservedChunks, v.Held.Count)
	}
	// The files are found again without being named.
	s.term()
	s.start(flags...)
	if v := s.status(); len(v.Components) != 4 || v.AllocatedChunks != 250 {
		t.Errorf("after a restart: %d components, %d chunks", len(v.Components), v.AllocatedChunks)
	}
}

func TestWritesHeldForSpaceFailOnTimeoutAndOnForcedStop(t *testing.T) {
	for _, timeout := range []bool{true, false} {
		t.Run(fmt.Sprintf("timeout=%t", timeout), func(t *testing.T) {
			s := newSite(t, 16*mib)
			s.label("-s", "1g", "-m", "1m")
			var flags []string
			if timeout {
				flags = []string{"--full-timeout", "300ms"}
			}
			s.start(flags...)
			c := s.dial()
			b := make([]byte, mib)
			result := make(chan error, 1)
			go func() {
				for off := int64(0); ; off += mib {
					if _, err := c.WriteAt(b, off); err != nil {
						result <- err
						return
					}
				}
			}()
			if !timeout {
				s.until("a write is held", func() bool { return s.status().Held.Count > 0 })
				if out, err := s.tryGvirstor("stop", "vol"); err == nil {
					t.Fatalf("a volume in use is stopped: %s", out)
				}
				s.gvirstor("stop", "-f", "vol")
			}
			select {
			case err := <-result:
				if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("the write ended with %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the write is still held")
			}
			s.term()
		})
	}
}

func TestAnAlertIsSentThroughEveryChannelOnPurpose(t *testing.T) {
	s := newSite(t, 16*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start(s.hookFlags()...)
	out := s.gvirstor("alert", "--test", "vol")
	for _, want := range []string{"log  ok", "events  ok", "metrics  ok", "command  ok      done in"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if as := s.alerts(); len(as) != 1 || as[0].Level != space.Test {
		t.Errorf("the command got %+v", as)
	}
	if n := figure(t, s.scrape(), "gvirstor_alerts_total", "vol", "test"); n != 1 {
		t.Errorf("%v in the metrics", n)
	}
	s.term()
	s.start("--on-alert", "echo pager is dead; exit 3")
	out, err := s.tryGvirstor("alert", "--test", "vol")
	if err == nil || !strings.Contains(out, "pager is dead") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestUnderASupervisorSpaceIsMadeAndCommandsAreRunByIt(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	dir := filepath.Join(s.dir, "pool")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(s.dir, "away")
	s.start(append(s.hookFlags(), "--supervise", "--grow", "vol="+dir+":64m", "--grow-max", "64m", "--spare", "vol="+away)...)
	spare := s.file("spare", 64*mib)
	s.gvirstor("spare", "vol", spare)
	s.fill("220m")() // 61 + 3 * 63 chunks
	s.until("both are counted", func() bool { return s.status().SparesAdded >= 2 })
	v := s.status()
	if len(v.Components) != 4 || v.SparesAdded != 2 || v.Components[2].Name != spare {
		t.Fatalf("components %+v, %d added\n%s", v.Components, v.SparesAdded, s.log)
	}
	s.until("both are told of", func() bool {
		return strings.Count(strings.Join(levels(s.alerts(), false), " "), "spare-added") == 2
	})
	old := s.worker()
	third := s.file("third", 64*mib)
	s.gvirstor("spare", "vol", third)
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.nextWorker(old)
	s.until("the next worker has the spare", func() bool {
		v := s.status()
		if len(v.Components) != 4 || len(v.Spares) != 2 {
			return false
		}
		slices.SortFunc(v.Spares, func(a, b control.Spare) int { return strings.Compare(a.Name, b.Name) })
		return v.Spares[0].Name == away && v.Spares[0].Failed != "" && v.Spares[1].Name == third && v.Spares[1].Failed == ""
	})
	if out := s.gvirstor("alert", "--test", "vol"); !strings.Contains(out, "command  ok") {
		t.Errorf("after the worker's death: %s", out)
	}
}
