package web

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Health tells how the daemon is. Its methods are called by many goroutines.
type Health interface {
	// Ready is nil when every volume that is known is served in full.
	Ready(ctx context.Context) error
}

// showHealth answers /healthz: who answers lives.
func showHealth(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// showReadiness answers /readyz.
func showReadiness(h Health) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h.Ready(r.Context()); err != nil {
			http.Error(w, ondisk.PrintableText(err.Error()), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
}
