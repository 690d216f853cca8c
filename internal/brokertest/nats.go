package brokertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSOptions configure a NATS. nil and zero values mean the defaults.
type NATSOptions struct {
	// SyncAlways makes the server flush each message to disk before it confirms
	// it. Default false, which is the server's own.
	SyncAlways bool
	// MaxPayload is the size in bytes of the largest message that the server
	// takes. Default 1 MiB, which is the server's own.
	MaxPayload int32
	// More changes the options that are passed to nats-server.
	More func(*server.Options)
}

// NATS is a nats-server with JetStream on loopback. Its streams are files in a
// temporary directory that Close removes. Its methods may be called by several
// goroutines at once, except that Close, Stop and Restart exclude all others.
type NATS struct {
	options NATSOptions
	dir     string
	port    int
	server  *server.Server // nil while stopped
}

// StartNATS starts a server.
func StartNATS(o *NATSOptions) (*NATS, error) {
	n := &NATS{port: server.RANDOM_PORT}
	if o != nil {
		n.options = *o
	}
	dir, err := os.MkdirTemp("", "brokertest-nats-")
	if err != nil {
		return nil, fmt.Errorf("brokertest: %w", err)
	}
	n.dir = dir
	if err := n.start(); err != nil {
		n.Close()
		return nil, err
	}
	addr, ok := n.server.Addr().(*net.TCPAddr)
	if !ok {
		n.Close()
		return nil, fmt.Errorf("brokertest: server address %v is not a TCP address", n.server.Addr())
	}
	n.port = addr.Port
	return n, nil
}

func (n *NATS) start() error {
	o := &server.Options{
		Host:       "127.0.0.1",
		Port:       n.port,
		JetStream:  true,
		StoreDir:   n.dir,
		SyncAlways: n.options.SyncAlways,
		MaxPayload: n.options.MaxPayload,
		NoLog:      true,
		NoSigs:     true,
	}
	if n.options.More != nil {
		n.options.More(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("brokertest: start nats: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(2 * time.Minute) {
		s.Shutdown()
		s.WaitForShutdown()
		return fmt.Errorf("brokertest: nats-server at port %d did not get ready", n.port)
	}
	n.server = s
	return nil
}

// URL returns the address of the server. It stays the same across Restart.
func (n *NATS) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.port) }

// Server gives access to all that nats-server can do. It is nil while the server
// is stopped.
func (n *NATS) Server() *server.Server { return n.server }

// Connect opens a connection that never gives up reconnecting. The caller closes
// its Conn.
func (n *NATS) Connect(opts ...nats.Option) (jetstream.JetStream, error) {
	return connect(n.URL(), opts...)
}

func connect(url string, opts ...nats.Option) (jetstream.JetStream, error) {
	conn, err := nats.Connect(url, append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.Timeout(time.Minute), // the machine may stand still for a while
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("brokertest: connect to nats: %w", err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("brokertest: %w", err)
	}
	return js, nil
}

// Stop stops the server: connections break, and new ones are refused.
func (n *NATS) Stop() {
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
		n.server = nil
	}
}

// Restart starts the stopped server again, at the same address and with the same
// streams and consumers.
func (n *NATS) Restart() error {
	n.Stop()
	if n.dir == "" {
		return errors.New("brokertest: Restart after Close")
	}
	for range 50 { // somebody's outgoing connection may have taken the port for a moment
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
		if err == nil {
			_ = l.Close()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return n.start()
}

// CutConnections breaks all connections to the server, which goes on running.
func (n *NATS) CutConnections() error {
	conns, err := n.server.Connz(&server.ConnzOptions{Limit: 1 << 20})
	if err != nil {
		return fmt.Errorf("brokertest: %w", err)
	}
	for _, c := range conns.Conns {
		_ = n.server.DisconnectClientByID(c.Cid) // it may have gone by itself
	}
	return nil
}

// Close stops the server and removes its files.
func (n *NATS) Close() {
	n.Stop()
	_ = os.RemoveAll(n.dir)
	n.dir = ""
}

// NewNATS is StartNATS for tests: it fails the test, and closes the server at its
// end.
func NewNATS(t TB, o *NATSOptions) *NATS {
	t.Helper()
	n, err := StartNATS(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(n.Close)
	return n
}
