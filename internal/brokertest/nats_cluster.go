package brokertest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSCluster is a cluster of nats-servers with JetStream on loopback, named n0, n1,
// and so on.
type NATSCluster struct{ Servers []*NATS }

// StartNATSCluster starts n servers and waits until they have a leader.
func StartNATSCluster(n int) (*NATSCluster, error) {
	var routes []*url.URL
	var ports []int
	for range n {
		port, err := freePort()
		if err != nil {
			return nil, fmt.Errorf("brokertest: %w", err)
		}
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	c := &NATSCluster{}
	for i := range n {
		s, err := StartNATS(&NATSOptions{More: func(o *server.Options) {
			o.ServerName = fmt.Sprintf("n%d", i)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = slices.Clone(routes)
		}})
		if err != nil {
			c.Close()
			return nil, err
		}
		c.Servers = append(c.Servers, s)
	}
	for range 6000 {
		if slices.ContainsFunc(c.Servers, func(s *NATS) bool { return s.server.JetStreamIsLeader() && len(s.server.JetStreamClusterPeers()) == n }) {
			return c, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.Close()
	return nil, errors.New("brokertest: the cluster chose no leader within 2 minutes")
}

// freePort returns a port that nobody listens at.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("%v is not a TCP address", l.Addr())
	}
	return addr.Port, nil
}

// Server returns the server of that name.
func (c *NATSCluster) Server(name string) (*NATS, error) {
	for i, s := range c.Servers {
		if name == fmt.Sprintf("n%d", i) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("brokertest: the cluster has no server %q", name)
}

// Connect opens a connection to all servers, at one of them. The caller closes its
// Conn.
func (c *NATSCluster) Connect(opts ...nats.Option) (jetstream.JetStream, error) {
	var urls []string
	for _, s := range c.Servers {
		urls = append(urls, s.URL())
	}
	return connect(strings.Join(urls, ","), opts...)
}

// Close stops all servers and removes their files.
func (c *NATSCluster) Close() {
	for _, s := range c.Servers {
		s.Close()
	}
}
