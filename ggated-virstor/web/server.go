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

// Server answers the status page, /metrics, /healthz and /readyz.
type Server struct{ http http.Server }

// Config is what a Server answers from.
type Config struct {
	Collector *Collector
	Health    Health
	Overseer  Overseer
	Names     []string // by which it is asked, beside the addresses it listens on and localhost
	// Process gives the figures of this process where it cannot read them itself, or is
	// nil.
	Process func() ([]Figure, error)
	Log     *slog.Logger
}

// NewServer makes a Server.
func NewServer(c Config) *Server {
	errorLog := slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", showMetrics(c.Collector, c.Process, errorLog))
	mux.HandleFunc("GET /healthz", showHealth)
	mux.HandleFunc("GET /readyz", showReadiness(c.Health))
	page := newPage(c.Overseer, errorLog)
	page.routes(mux)
	s := &Server{http.Server{
		Handler: guard(c.Names, mux), ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: errorLog,
	}}
	s.http.RegisterOnShutdown(func() { close(page.ended) })
	return s
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

// Shutdown ends streams, lets requests finish until ctx ends, and closes the listener. It
// is called once.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop the HTTP server: %w", err), s.http.Close())
	}
	return nil
}
