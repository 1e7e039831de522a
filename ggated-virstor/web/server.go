package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// Times and sizes of the server.
const (
	requestTime = 10 * time.Second
	answerTime  = 30 * time.Second
	idleTime    = 2 * time.Minute
	maxHeader   = 16 << 10
)

// Server answers /metrics, /healthz and /readyz.
type Server struct{ http http.Server }

// NewServer makes a Server that is asked by the names, beside the addresses it
// listens on and localhost. process gives the figures of this process where it cannot
// read them itself, or is nil.
func NewServer(c *Collector, h Health, names []string, process func() ([]Figure, error), log *slog.Logger) *Server {
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", showMetrics(c, process, errorLog))
	mux.HandleFunc("GET /healthz", showHealth)
	mux.HandleFunc("GET /readyz", showReadiness(h))
	return &Server{http.Server{
		Handler: guard(names, mux), ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: errorLog,
	}}
}

// Resolve reads the address of --http: HOST:PORT, where an empty host is the
// loopback address, 0.0.0.0 every address of IPv4, and [::] every one of IPv6.
func Resolve(address string) (*net.TCPAddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil && !strings.Contains(address, ":") {
		host, port, err = "", address, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--http %s: HOST:PORT is needed: %w", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	tcp, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w", address, err)
	}
	return tcp, nil
}

// Listen opens the address that Resolve reads, and no other.
func Listen(address string) (net.Listener, error) {
	tcp, err := Resolve(address)
	if err != nil {
		return nil, err
	}
	network := "tcp6"
	if tcp.IP.To4() != nil {
		network = "tcp4" // or 0.0.0.0 would be [::] as well
	}
	l, err := net.Listen(network, tcp.String())
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w", address, err)
	}
	return l, nil
}

// Serve answers until Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown lets requests finish until ctx ends, and closes the listener.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop the metrics server: %w", err), s.http.Close())
	}
	return nil
}
