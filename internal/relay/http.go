package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// CheckListen returns an error if s is not an address to listen at: HOST:PORT, or
// :PORT for all interfaces. Port 0 is any free one.
func CheckListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is no address to listen at: write HOST:PORT, or leave it empty for none", s)
	}
	return nil
}

// server is the HTTP side of a Relay. It has no authentication and changes nothing.
type server struct {
	http     http.Server
	listener net.Listener
	done     chan struct{} // closed when it no longer accepts
}

// serve listens at the address, or returns why it cannot.
func (r *Relay) serve(address string) (*server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the address again
		}
		return nil, fmt.Errorf("--listen %s: %w; choose another address, or none with --listen=", address, err)
	}
	s := &server{
		listener: l,
		done:     make(chan struct{}),
		http: http.Server{
			Handler:           r.handler(),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(r.config.Logger.Handler(), slog.LevelWarn),
		},
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.config.Logger.Error("the HTTP endpoints are gone", "err", err)
		}
	}()
	return s, nil
}

// Close ends the server, and answers what is under way if that is soon done.
func (s *server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout+time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

// Addr returns the address of the HTTP endpoints; nil if there are none.
func (r *Relay) Addr() net.Addr {
	if r.server == nil {
		return nil
	}
	return r.server.listener.Addr()
}

// newRegistry returns a registry with what describes the process, and the counter
// of answers that could not be written.
func newRegistry(scope, version string) (*prometheus.Registry, prometheus.Counter) {
	reg := prometheus.NewRegistry()
	labels := prometheus.Labels{"scope": scope}
	unwritten := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dedup_relay_http_write_errors_total", Help: "HTTP answers that could not be written.", ConstLabels: labels,
	})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dedup_relay_build_info", Help: "1, with the version of the relay.",
		ConstLabels: prometheus.Labels{"scope": scope, "version": version},
	})
	build.Set(1)
	reg.MustRegister(unwritten, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg, unwritten
}

func (r *Relay) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{
		ErrorLog:          slog.NewLogLogger(r.config.Logger.Handler(), slog.LevelWarn),
		ErrorHandling:     promhttp.ContinueOnError,
		Registry:          r.registry,
		CoalesceGather:    true,
		EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		c := answer(r.alive())
		writeJSON(w, c.OK, c)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		report := r.ready()
		writeJSON(w, report.Ready, report)
	})
	mux.HandleFunc("GET /statusz", func(w http.ResponseWriter, req *http.Request) {
		writeJSON(w, true, r.status(req.Context()))
	})
	return counted(mux, r.unwritten)
}

// writeJSON answers with v: 200, or 503 if not ok.
func writeJSON(w http.ResponseWriter, ok bool, v any) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body.Bytes()) // counted
}

// counted counts the answers of h that could not be written.
func counted(h http.Handler, unwritten prometheus.Counter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := &countingWriter{ResponseWriter: w, unwritten: unwritten}
		h.ServeHTTP(c, req)
		// What is small is in a buffer yet.
		if err := http.NewResponseController(w).Flush(); err != nil {
			c.failed()
		}
	})
}

type countingWriter struct {
	http.ResponseWriter
	unwritten prometheus.Counter
	once      sync.Once
}

func (c *countingWriter) failed() { c.once.Do(c.unwritten.Inc) }

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	if err != nil {
		c.failed()
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
