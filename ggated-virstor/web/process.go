package web

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Figure is one of the figures of a process that Prometheus' own libraries call
// process_*.
type Figure struct {
	Name, Help string
	Counter    bool // else a gauge
	Value      float64
}

// ProcessFigures are the figures of a process, which may be another than this; none where
// the system does not tell. It reads files of /proc, which a confined process
// cannot.
func ProcessFigures(pid int) ([]Figure, error) {
	registry := prometheus.NewRegistry()
	err := registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{PidFn: func() (int, error) { return pid, nil }}))
	if err != nil {
		return nil, fmt.Errorf("figures of process %d: %w", pid, err)
	}
	families, err := registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("figures of process %d: %w", pid, err)
	}
	var all []Figure
	for _, f := range families {
		for _, m := range f.GetMetric() {
			figure := Figure{Name: f.GetName(), Help: f.GetHelp(), Value: m.GetGauge().GetValue()}
			if c := m.GetCounter(); c != nil {
				figure.Counter, figure.Value = true, c.GetValue()
			}
			all = append(all, figure)
		}
	}
	return all, nil
}

// told collects figures that another process has read. What cannot be had is left
// out.
type told func() ([]Figure, error)

// Describe describes nothing: which figures there are is the system's to say.
func (told) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (t told) Collect(out chan<- prometheus.Metric) {
	figures, err := t()
	if err != nil {
		return
	}
	for _, f := range figures {
		kind := prometheus.GaugeValue
		if f.Counter {
			kind = prometheus.CounterValue
		}
		m, err := prometheus.NewConstMetric(prometheus.NewDesc(f.Name, f.Help, nil, nil), kind, f.Value)
		if err == nil {
			out <- m
		}
	}
}
