package web

import (
	"log"
	"net/http"
	"runtime"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ondisk"
)

// VolumeMetrics are those of one volume at the moment of a scrape.
type VolumeMetrics struct {
	Status      virstor.Status
	Ops         map[virstor.Op]virstor.OpStats
	CommitSizes virstor.Histogram

	Job   virstor.JobStatus // the running one; Kind is empty when none is
	Jobs  map[string]virstor.JobTotals
	Kinds []string // of jobs

	Levels        []string          // that alerts can be raised on
	Raised        map[string]bool   // those that are
	Alerts        map[string]uint64 // by level, how often
	SecondsToFull float64           // +Inf: the volume does not grow
	// SecondsToQuota are those of further volumes that have one, by their ids.
	SecondsToQuota map[uint64]float64
	Spares         int // ready
	SparesAdded    uint64
	SpareFailures  uint64
	HookFailures   uint64
}

// Source is who knows. Its methods are called by many goroutines.
type Source interface {
	Metrics() []VolumeMetrics
	Takeovers() uint64
}

// maxConcurrent is how many scrapes are answered at once.
const maxConcurrent = 4

// showMetrics answers /metrics with what c collects, the figures of Go's runtime, and
// those of the process, from process if this one cannot read them itself.
func showMetrics(c *Collector, process func() ([]Figure, error), errorLog *log.Logger) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector())
	if process == nil {
		registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	} else {
		registry.MustRegister(told(process))
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: errorLog, MaxRequestsInFlight: maxConcurrent,
		ErrorHandling: promhttp.ContinueOnError})
}

// desc makes descriptions whose names begin with gvirstor_.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gvirstor_"+name, help, labels, nil)
}

// metric is a description and whether its value only grows.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{desc(name, help, labels...), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) metric {
	return metric{desc(name, help, labels...), prometheus.CounterValue}
}

var (
	buildInfo = gauge("build_info", "A constant 1, labelled by what runs.", "version", "goversion")
	takeovers = counter("takeovers_total", "Devices taken over from a daemon that died.")

	virtualSize   = gauge("volume_virtual_size_bytes", "Size of the virtual disk.", "volume")
	physical      = gauge("volume_physical_bytes", "Space on all components that data may use.", "volume")
	allocated     = gauge("volume_allocated_bytes", "Physical space that is allocated.", "volume")
	free          = gauge("volume_free_bytes", "Physical space that is free, the reserve included.", "volume")
	reserved      = gauge("volume_reserved_bytes", "Free space that ordinary writes leave.", "volume")
	chunkSize     = gauge("volume_chunk_size_bytes", "Unit of allocation.", "volume")
	secondsToFull = gauge("volume_predicted_full_seconds", "Time until the volume is full at the present rate of allocation; +Inf when it does not grow.", "volume")
	readOnly      = gauge("volume_read_only", "1 when the volume was opened without writes.", "volume")
	degraded      = gauge("volume_degraded", "1 while an allocation map sector cannot be written.", "volume")
	leaseLeft     = gauge("lease_left_seconds", "For how long requests may be sent to components that other hosts reach, unless the lease is renewed.", "volume")
	leaseFencing  = gauge("lease_fencing", "1 when another host is fenced off before its lease is taken.", "volume")
	snapshots     = gauge("volume_snapshots", "Snapshots of the volume.", "volume")
	snapshotBytes = gauge("volume_snapshot_bytes", "Physical space that snapshots hold and the volume does not, with their maps and the reserve for them.", "volume")

	furtherSize      = gauge("further_size_bytes", "Size of the further volume.", "pool", "volume")
	furtherAllocated = gauge("further_allocated_bytes", "Physical space of the chunks that the further volume has, in common with others or not.", "pool", "volume")
	furtherQuota     = gauge("further_quota_bytes", "How much of that it may have; 0 is no limit.", "pool", "volume")
	furtherToQuota   = gauge("further_predicted_full_seconds", "Time until it has that at the present rate of allocation; +Inf when it does not grow. Those without a quota have none.", "pool", "volume")
	furtherHeld      = gauge("further_held_writes", "Writes to the further volume that wait for space; held_writes has them, too.", "pool", "volume")
	furtherHeldBytes = gauge("further_held_bytes", "Data of these.", "pool", "volume")
	furtherHeldSince = gauge("further_held_oldest_seconds", "How long the first of them has waited.", "pool", "volume")
	furtherDegraded  = gauge("further_degraded", "1 while a sector of the further volume's map cannot be written.", "pool", "volume")
	furtherDamaged   = gauge("further_damaged", "1 when the map of the further volume cannot be read.", "pool", "volume")

	componentPhysical  = gauge("component_physical_bytes", "Space on the component that data may use.", "volume", "component")
	componentAllocated = gauge("component_allocated_bytes", "Space on the component that is allocated.", "volume", "component")
	componentFree      = gauge("component_free_bytes", "Space on the component that is free.", "volume", "component")
	componentReserved  = gauge("component_reserved_bytes", "Space on the component that is reserved for the allocation map.", "volume", "component")
	componentFailed    = gauge("component_failed", "1 when a flush of the component failed.", "volume", "component")
	componentTrouble   = gauge("component_trouble", "1 when the component has had errors of the kind in the last minutes.", "volume", "component", "kind")
	componentFlushes   = counter("component_flushes_total", "Flushes of the component.", "volume", "component")
	componentZeroed    = counter("component_zeroed_bytes_total", "Zeros written to new chunks.", "volume", "component")
	componentAway      = gauge("component_away_seconds", "For how long the component's server has not been reached, 0 while it is.", "volume", "component")
	componentUnflushed = gauge("component_unflushed_bytes", "What is kept to be written again if the component's server comes back without it.", "volume", "component")
	componentRegained  = counter("component_reconnects_total", "How often the component's server was reached again.", "volume", "component")
	componentErrors    = counter("component_errors_total", "Failed reads and writes of the component.", "volume", "component", "op")

	operations     = counter("operations_total", "Requests that were completed.", "volume", "op")
	operationBytes = counter("operation_bytes_total", "Bytes of requests that succeeded.", "volume", "op")
	operationErrs  = counter("operation_errors_total", "Requests that failed.", "volume", "op")
	latency        = desc("operation_duration_seconds", "Time from a request to its completion, waits for space included; of reads and writes one in 16 is timed.", "volume", "op")
	flushes        = counter("flushes_total", "Flushes of the volume.", "volume")
	commits        = desc("group_commit_chunks", "Chunks allocated by each group commit.", "volume")
	mapWrites      = counter("map_writes_total", "Allocation map sectors written.", "volume")

	heldWrites  = gauge("held_writes", "Writes that wait for space.", "volume")
	heldBytes   = gauge("held_bytes", "Data of writes that wait for space.", "volume")
	heldSeconds = gauge("held_oldest_seconds", "How long the first of the waiting writes has waited.", "volume")

	alerts        = counter("alerts_total", "Alerts told, by level.", "volume", "level")
	alertActive   = gauge("alert_active", "1 while the level is crossed.", "volume", "level")
	hookFailures  = counter("alert_command_failures_total", "Runs of the alert command that failed or took too long.", "volume")
	spares        = gauge("spares", "Spares that are ready.", "volume")
	sparesAdded   = counter("spares_added_total", "Spares and new files that the daemon added by itself.", "volume")
	spareFailures = counter("spare_failures_total", "Spares and new files that could not be added.", "volume")

	jobRunning = gauge("job_running", "1 while a job of the kind runs.", "volume", "kind")
	jobDone    = gauge("job_done_bytes", "How far the running job is; 0 when none runs.", "volume")
	jobTotal   = gauge("job_size_bytes", "How much the running job has to go through, 0 while that is not known.", "volume")
	jobBytes   = counter("job_bytes_total", "Bytes that jobs have gone through.", "volume", "kind")
	jobChunks  = counter("job_chunks_total", "Chunks that jobs have moved or freed.", "volume", "kind")
	jobsEnded  = counter("jobs_ended_total", "Jobs that ended, by how: done, cancelled, failed.", "volume", "kind", "state")

	nbdConnections = gauge("nbd_connections", "NBD clients connected.", "volume")
	nbdAccepted    = counter("nbd_connections_accepted_total", "NBD connections accepted.")
	nbdRefused     = counter("nbd_connections_refused_total", "NBD connections refused at the limit.")
)

// Collector is a prometheus.Collector over a Source.
type Collector struct {
	source  Source
	nbd     func() nbd.Stats // or nil
	version string
}

// NewCollector makes a Collector. stats may be nil.
func NewCollector(s Source, stats func() nbd.Stats, version string) *Collector {
	return &Collector{s, stats, version}
}

// Describe implements prometheus.Collector: what there is depends on the
// volumes, so the collector is unchecked.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := sink{ch}
	s.add(buildInfo, 1, c.version, runtime.Version())
	s.add(takeovers, float64(c.source.Takeovers()))
	for _, v := range c.source.Metrics() {
		s.volume(&v)
	}
	if c.nbd == nil {
		return
	}
	st := c.nbd()
	s.add(nbdAccepted, float64(st.Accepted))
	s.add(nbdRefused, float64(st.Refused))
	for name, e := range st.Exports {
		s.add(nbdConnections, float64(e.Conns), name)
	}
}

type sink struct{ ch chan<- prometheus.Metric }

// add sends a value. Names of volumes and providers are bytes on a disk, and
// labels are UTF-8.
func (s sink) add(m metric, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, valid(labels)...)
}

func valid(labels []string) []string {
	for i, l := range labels {
		labels[i] = ondisk.Printable(l)
	}
	return labels
}

func (s sink) volume(v *VolumeMetrics) {
	st := &v.Status
	name := st.Name
	bytes := func(chunks int64) float64 { return float64(chunks) * float64(st.ChunkSize) }
	s.add(virtualSize, float64(st.Size), name)
	s.add(physical, bytes(st.PhysicalChunks), name)
	s.add(allocated, bytes(st.Allocated), name)
	s.add(free, bytes(st.Free), name)
	s.add(reserved, bytes(st.Reserved), name)
	s.add(chunkSize, float64(st.ChunkSize), name)
	s.add(secondsToFull, v.SecondsToFull, name)
	s.add(readOnly, truth(st.ReadOnly), name)
	s.add(degraded, truth(st.Degraded), name)
	if l := st.Lease; l != nil {
		s.add(leaseLeft, l.Left.Seconds(), name)
		s.add(leaseFencing, truth(l.Fenced), name)
	}
	s.add(snapshots, float64(st.Snapshots), name)
	s.add(snapshotBytes, bytes(st.SnapshotChunks), name)
	s.add(flushes, float64(st.Stats.Flushes), name)
	s.add(mapWrites, float64(st.Stats.MapWrites), name)
	s.add(heldWrites, float64(st.Held.Count), name)
	s.add(heldBytes, float64(st.Held.Bytes), name)
	s.add(heldSeconds, st.Held.Oldest.Seconds(), name)
	s.add(hookFailures, float64(v.HookFailures), name)
	s.add(spares, float64(v.Spares), name)
	s.add(sparesAdded, float64(v.SparesAdded), name)
	s.add(spareFailures, float64(v.SpareFailures), name)
	for _, l := range v.Levels {
		s.add(alertActive, truth(v.Raised[l]), name, l)
	}
	for l, n := range v.Alerts {
		s.add(alerts, float64(n), name, l)
	}
	s.jobs(v)
	for op, o := range v.Ops {
		s.operation(name, op, &o)
	}
	s.histogram(commits, &v.CommitSizes, chunkBuckets, 1, name)
	for i := range st.Components {
		s.component(name, st.ChunkSize, &st.Components[i])
	}
	for i := range st.Volumes {
		s.further(name, &st.Volumes[i], v.SecondsToQuota)
	}
}

// further sends what there is of a further volume of a pool.
func (s sink) further(pool string, f *virstor.VolumeInfo, toQuota map[uint64]float64) {
	name := pool + "/" + f.Name
	s.add(furtherSize, float64(f.Size), pool, name)
	s.add(furtherAllocated, float64(f.Allocated), pool, name)
	s.add(furtherQuota, float64(f.Quota), pool, name)
	if secs, ok := toQuota[f.ID]; ok {
		s.add(furtherToQuota, secs, pool, name)
	}
	s.add(furtherHeld, float64(f.Held.Count), pool, name)
	s.add(furtherHeldBytes, float64(f.Held.Bytes), pool, name)
	s.add(furtherHeldSince, f.Held.Oldest.Seconds(), pool, name)
	s.add(furtherDegraded, truth(f.Degraded), pool, name)
	s.add(furtherDamaged, truth(f.Err != nil), pool, name)
}

// jobs sends what the long jobs do and did.
func (s sink) jobs(v *VolumeMetrics) {
	name := v.Status.Name
	s.add(jobDone, float64(v.Job.Done), name)
	s.add(jobTotal, float64(v.Job.Total), name)
	for _, kind := range v.Kinds {
		t := v.Jobs[kind]
		s.add(jobRunning, truth(v.Job.Kind == kind), name, kind)
		s.add(jobBytes, float64(t.Bytes), name, kind)
		s.add(jobChunks, float64(t.Chunks), name, kind)
		for _, state := range []virstor.JobState{virstor.JobDone, virstor.JobCancelled, virstor.JobFailed} {
			s.add(jobsEnded, float64(t.Ended[state]), name, kind, state.String())
		}
	}
}

// OpName is the value of the label op, and the name of the operation in JSON.
func OpName(op virstor.Op) string {
	switch op {
	case virstor.OpRead:
		return "read"
	case virstor.OpWrite:
		return "write"
	case virstor.OpFlush:
		return "flush"
	case virstor.OpDelete:
		return "delete"
	}
	return "write_zeroes"
}

func (s sink) operation(volume string, op virstor.Op, o *virstor.OpStats) {
	name := OpName(op)
	s.add(operations, float64(o.Count), volume, name)
	s.add(operationBytes, float64(o.Bytes), volume, name)
	s.add(operationErrs, float64(o.Errors), volume, name)
	s.histogram(latency, &o.Latency, latencyBuckets, 1e-9, volume, name)
}

func (s sink) component(volume string, chunk int64, c *virstor.ComponentStatus) {
	bytes := func(chunks uint32) float64 { return float64(chunks) * float64(chunk) }
	s.add(componentPhysical, bytes(c.Usable), volume, c.Name)
	s.add(componentAllocated, bytes(c.Used), volume, c.Name)
	s.add(componentFree, bytes(c.Free), volume, c.Name)
	s.add(componentReserved, bytes(c.Reserved), volume, c.Name)
	s.add(componentFailed, truth(c.FlushFailed), volume, c.Name)
	for _, kind := range virstor.Troubles() {
		s.add(componentTrouble, truth(slices.Contains(c.Trouble, kind)), volume, c.Name, kind.String())
	}
	s.add(componentFlushes, float64(c.Stats.Flushes), volume, c.Name)
	s.add(componentZeroed, float64(c.Stats.ZeroedBytes), volume, c.Name)
	if c.Remote {
		s.add(componentAway, c.Reach.Away.Seconds(), volume, c.Name)
		s.add(componentUnflushed, float64(c.Reach.Unflushed), volume, c.Name)
		s.add(componentRegained, float64(c.Reach.Regained), volume, c.Name)
	}
	s.add(componentErrors, float64(c.Stats.ReadErrors), volume, c.Name, "read")
	s.add(componentErrors, float64(c.Stats.WriteErrors), volume, c.Name, "write")
}

// buckets are the powers of two, as exponents, that a histogram shows.
type buckets struct{ first, last int }

var (
	latencyBuckets = buckets{12, 35} // 4 µs to 34 s
	chunkBuckets   = buckets{1, 10}  // 1 to 1023
)

// histogram sends h. The engine's bucket i holds what is below 2^i: whole
// numbers, so that the bound that Prometheus includes is one less.
func (s sink) histogram(d *prometheus.Desc, h *virstor.Histogram, b buckets, unit float64, labels ...string) {
	cumulative := make(map[float64]uint64, b.last-b.first+1)
	var n uint64
	for i, count := range h.Buckets {
		n += count
		if i < b.first || i > b.last {
			continue
		}
		bound := float64(uint64(1)<<i) * unit
		if unit == 1 {
			bound--
		}
		cumulative[bound] = n
	}
	s.ch <- prometheus.MustNewConstHistogram(d, n, float64(h.Sum)*unit, cumulative, valid(labels)...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
