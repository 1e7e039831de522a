package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ondisk"
)

// source is volumes as given.
type source []VolumeMetrics

func (s source) Metrics() []VolumeMetrics { return s }
func (s source) Takeovers() uint64        { return 3 }

type health struct{ err error }

func (h health) Ready(context.Context) error { return h.err }

func someVolume(name string, components int) VolumeMetrics {
	v := VolumeMetrics{
		Status: virstor.Status{Name: name, Size: 1 << 40, ChunkSize: 1 << 20, PhysicalChunks: 100, Allocated: 60, Free: 40, Reserved: 5, Snapshots: 3, SnapshotChunks: 12,
			Held: virstor.HeldStatus{Count: 2, Bytes: 8192}, Lease: &virstor.LeaseStatus{Left: 12500 * time.Millisecond, Fenced: true}},
		Ops: map[virstor.Op]virstor.OpStats{}, Levels: []string{"percent-80", "full"}, Raised: map[string]bool{"full": true},
		Alerts: map[string]uint64{"full": 2}, SecondsToFull: math.Inf(1), SecondsToQuota: map[uint64]float64{2: 90}, Spares: 1, SparesAdded: 4,
	}
	v.Status.Volumes = []virstor.VolumeInfo{
		{ID: 2, Name: "web", Size: 3 << 20, Allocated: 2 << 20, Quota: 5 << 20, Held: virstor.HeldStatus{Count: 4, Bytes: 4096, Oldest: 2 * time.Second}, Degraded: true},
		{ID: 3, Name: "db", Err: virstor.ErrDamaged},
	}
	v.Kinds = virstor.JobKinds()
	v.Job = virstor.JobStatus{Kind: "pack", Done: 300, Total: 1000}
	v.Jobs = map[string]virstor.JobTotals{"pack": {Ended: [4]uint64{virstor.JobFailed: 2}, Bytes: 5000, Chunks: 7}}
	for _, op := range virstor.Ops() {
		o := virstor.OpStats{Count: 32, Bytes: 4096, Errors: 1}
		o.Latency.Buckets[13] = 2 // 4096 to 8191 ns
		o.Latency.Sum = 10000
		v.Ops[op] = o
	}
	v.CommitSizes.Buckets[1], v.CommitSizes.Buckets[3], v.CommitSizes.Sum = 4, 1, 9
	for i := range components {
		v.Status.Components = append(v.Status.Components, virstor.ComponentStatus{Name: fmt.Sprintf("ada%d", i), Usable: 50, Used: 30, Free: 20, Reserved: 2})
	}
	return v
}

// start serves s and returns the address.
func start(t *testing.T, s Source, h Health) string {
	t.Helper()
	l, err := Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	stats := func() nbd.Stats {
		return nbd.Stats{Accepted: 7, Exports: map[string]nbd.ExportStats{"a": {Conns: 2}}}
	}
	server := NewServer(Config{Collector: NewCollector(s, stats, "1.2.3"), Health: h, Overseer: &overseer{}, Log: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Counter != nil:
		return m.Counter.GetValue()
	}
	return math.NaN()
}

func find(t *testing.T, fs map[string]*dto.MetricFamily, name string, labels map[string]string) *dto.Metric {
	t.Helper()
	for _, m := range fs[name].GetMetric() {
		n := 0
		for _, l := range m.Label {
			if labels[l.GetName()] == l.GetValue() {
				n++
			}
		}
		if n == len(labels) {
			return m
		}
	}
	t.Fatalf("no %s%v", name, labels)
	return nil
}

func TestAPrometheusParserReadsEveryFigure(t *testing.T) {
	v := someVolume("a", 2)
	v.Status.Components[1].Remote = true
	v.Status.Components[1].Reach = geomlib.Reach{Away: 12500 * time.Millisecond, Unflushed: 4096, Regained: 3}
	fs := scrape(t, start(t, source{v}, health{}))
	if n := len(fs["gvirstor_component_away_seconds"].GetMetric()); n != 1 {
		t.Errorf("%d components are said to be away or not, where one is over the network", n)
	}
	for _, c := range []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{"gvirstor_build_info", map[string]string{"version": "1.2.3"}, 1},
		{"gvirstor_volume_virtual_size_bytes", map[string]string{"volume": "a"}, 1 << 40},
		{"gvirstor_volume_physical_bytes", map[string]string{"volume": "a"}, 100 << 20},
		{"gvirstor_volume_allocated_bytes", map[string]string{"volume": "a"}, 60 << 20},
		{"gvirstor_volume_free_bytes", map[string]string{"volume": "a"}, 40 << 20},
		{"gvirstor_volume_reserved_bytes", map[string]string{"volume": "a"}, 5 << 20},
		{"gvirstor_further_size_bytes", map[string]string{"pool": "a", "volume": "a/web"}, 3 << 20},
		{"gvirstor_further_allocated_bytes", map[string]string{"pool": "a", "volume": "a/web"}, 2 << 20},
		{"gvirstor_further_quota_bytes", map[string]string{"pool": "a", "volume": "a/web"}, 5 << 20},
		{"gvirstor_further_predicted_full_seconds", map[string]string{"pool": "a", "volume": "a/web"}, 90},
		{"gvirstor_further_held_writes", map[string]string{"volume": "a/web"}, 4},
		{"gvirstor_further_held_bytes", map[string]string{"volume": "a/web"}, 4096},
		{"gvirstor_further_held_oldest_seconds", map[string]string{"volume": "a/web"}, 2},
		{"gvirstor_further_degraded", map[string]string{"volume": "a/web"}, 1},
		{"gvirstor_further_degraded", map[string]string{"volume": "a/db"}, 0},
		{"gvirstor_further_damaged", map[string]string{"volume": "a/db"}, 1},
		{"gvirstor_lease_left_seconds", map[string]string{"volume": "a"}, 12.5},
		{"gvirstor_lease_fencing", map[string]string{"volume": "a"}, 1},
		{"gvirstor_volume_snapshots", map[string]string{"volume": "a"}, 3},
		{"gvirstor_volume_snapshot_bytes", map[string]string{"volume": "a"}, 12 << 20},
		{"gvirstor_volume_predicted_full_seconds", map[string]string{"volume": "a"}, math.Inf(1)},
		{"gvirstor_component_allocated_bytes", map[string]string{"component": "ada1"}, 30 << 20},
		{"gvirstor_component_reserved_bytes", map[string]string{"component": "ada0"}, 2 << 20},
		{"gvirstor_component_away_seconds", map[string]string{"component": "ada1"}, 12.5},
		{"gvirstor_component_unflushed_bytes", map[string]string{"component": "ada1"}, 4096},
		{"gvirstor_component_reconnects_total", map[string]string{"component": "ada1"}, 3},
		{"gvirstor_component_trouble", map[string]string{"component": "ada1", "kind": "no connection"}, 0},
		{"gvirstor_operations_total", map[string]string{"op": "write_zeroes"}, 32},
		{"gvirstor_operation_errors_total", map[string]string{"op": "flush"}, 1},
		{"gvirstor_held_writes", nil, 2},
		{"gvirstor_held_bytes", nil, 8192},
		{"gvirstor_alerts_total", map[string]string{"level": "full"}, 2},
		{"gvirstor_alert_active", map[string]string{"level": "full"}, 1},
		{"gvirstor_alert_active", map[string]string{"level": "percent-80"}, 0},
		{"gvirstor_spares_added_total", nil, 4},
		{"gvirstor_takeovers_total", nil, 3},
		{"gvirstor_job_running", map[string]string{"kind": "pack"}, 1},
		{"gvirstor_job_running", map[string]string{"kind": "evacuate"}, 0},
		{"gvirstor_job_done_bytes", nil, 300},
		{"gvirstor_job_size_bytes", nil, 1000},
		{"gvirstor_job_bytes_total", map[string]string{"kind": "pack"}, 5000},
		{"gvirstor_job_chunks_total", map[string]string{"kind": "pack"}, 7},
		{"gvirstor_jobs_ended_total", map[string]string{"kind": "pack", "state": "failed"}, 2},
		{"gvirstor_jobs_ended_total", map[string]string{"kind": "resize", "state": "done"}, 0},
		{"gvirstor_nbd_connections", map[string]string{"volume": "a"}, 2},
		{"gvirstor_nbd_connections_accepted_total", nil, 7},
	} {
		if got := value(find(t, fs, c.name, c.labels)); got != c.want {
			t.Errorf("%s%v is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	h := find(t, fs, "gvirstor_operation_duration_seconds", map[string]string{"op": "read"}).Histogram
	if h.GetSampleCount() != 2 || h.GetSampleSum() != 1e-5 {
		t.Errorf("latency: %v", h)
	}
	for _, b := range h.Bucket {
		want := uint64(2)
		if b.GetUpperBound() < 8e-6 {
			want = 0
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("bucket %v has %d", b.GetUpperBound(), b.GetCumulativeCount())
		}
	}
	c := find(t, fs, "gvirstor_group_commit_chunks", nil).Histogram
	if b := c.Bucket[0]; c.GetSampleCount() != 5 || b.GetUpperBound() != 1 || b.GetCumulativeCount() != 4 {
		t.Errorf("group commits: %v", c)
	}
}

func TestNamesAndUnitsKeepPrometheusConventions(t *testing.T) {
	resp, err := http.Get(start(t, source{someVolume("a", 1)}, health{}) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	problems, err := promlint.New(resp.Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestSeriesGrowByVolumesAndComponentsAlone(t *testing.T) {
	count := func(s source) int {
		n := 0
		for name, f := range scrape(t, start(t, s, health{})) {
			if len(name) > 9 && name[:9] == "gvirstor_" {
				n += len(f.Metric)
			}
		}
		return n
	}
	none := count(source{})
	one, two := count(source{someVolume("a", 1)}), count(source{someVolume("a", 1), someVolume("b", 1)})
	wide := count(source{someVolume("a", 11)})
	if two-one != one-none {
		t.Errorf("a volume has %d series, a second one %d", one-none, two-one)
	}
	if per := (wide - one) / 10; per > 13 || one-none > 120 {
		t.Errorf("%d series a component, %d a volume", per, one-none)
	}
}

func TestNamesThatAreNoUTF8DoNotSpoilTheScrape(t *testing.T) {
	fs := scrape(t, start(t, source{someVolume("\xff\xfe\"\n", 1)}, health{}))
	find(t, fs, "gvirstor_volume_free_bytes", map[string]string{"volume": ondisk.Printable("\xff\xfe\"\n")})
}

func TestHealthAndReadinessAreTold(t *testing.T) {
	good := start(t, source{}, health{})
	bad := start(t, source{}, health{errors.New("mydata is being taken over")})
	for _, c := range []struct {
		url  string
		code int
		text string
	}{
		{good + "/healthz", 200, "ok\n"}, {good + "/readyz", 200, "ready\n"},
		{bad + "/healthz", 200, "ok\n"}, {bad + "/readyz", 503, "mydata is being taken over\n"},
		{good + "/other", 404, "404 page not found\n"},
	} {
		if code, text := get(t, c.url); code != c.code || string(text) != c.text {
			t.Errorf("%s: %d %q", c.url, code, text)
		}
	}
}

func TestTheDefaultHostIsLoopback(t *testing.T) {
	for _, a := range []string{":0", "0"} {
		l, err := Listen(a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if host := l.Addr().String(); host[:10] != "127.0.0.1:" {
			t.Errorf("%s listens on %s", a, host)
		}
	}
	if _, err := Listen("a:b:c"); err == nil {
		t.Error("a:b:c is an address")
	}
}
