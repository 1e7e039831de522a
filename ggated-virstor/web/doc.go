// Package web is what the daemon answers by HTTP, which can only be read:
//
//	/         page.go, view.go        for people, and as JSON
//	/live     live.go                 the same anew, each time that it changes
//	/metrics  metrics.go, process.go  for Prometheus
//	/healthz  health.go               whether the process lives
//	/readyz   health.go               whether every volume is served in full
//
// A request passes guard, which refuses names that are none of the server's, and
// then asks Overseer, Source and Health: a daemon.Daemon. Of metrics there is a series for each
// volume and for each component, times a fixed number; nothing else multiplies.
//
// Another page is a file with its handler, and a line in NewServer.
package web
