package web

import (
	"os"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestFiguresThatAnotherProcessReadAreThoseOfTheLibrary(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the library reads /proc")
	}
	figures, err := ProcessFigures(os.Getpid())
	if err != nil || len(figures) == 0 {
		t.Fatalf("%v, %v", figures, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(told(func() ([]Figure, error) { return figures, nil }))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = (m.GetCounter() != nil) == (f.GetName() == "process_cpu_seconds_total")
	}
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} {
		if !got[name] {
			t.Errorf("%s is missing, or of another kind", name)
		}
	}
}
