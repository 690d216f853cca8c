package kafkatransport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// silent starts a server that accepts connections and never says a word. It signals
// each.
func silent(t *testing.T) (addr string, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	signal := make(chan struct{}, 100)
	var serving sync.WaitGroup
	var open []net.Conn
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			wait.Notify(signal)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
		for _, c := range open {
			_ = c.Close()
		}
	})
	return l.Addr().String(), signal
}

// TestCloseEndsDialing: the TLS handshake of a connection is a part of it that lasts
// for as long as the broker is silent.
func TestCloseEndsDialing(t *testing.T) {
	addr, accepted := silent(t)
	l := newLink([]string{addr}, "test", Security{TLS: &tls.Config{}}, nil, time.Second)
	dialed := make(chan error, 1)
	go func() {
		_, err := l.dial(context.Background(), "tcp", addr) // nothing else ends it
		dialed <- err
	}()
	<-accepted
	l.close()
	if err := <-dialed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
	if _, err := l.dial(context.Background(), "tcp", addr); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after close: got %v, want net.ErrClosed", err)
	}
}

// TestShutdownWhileBrokersAreSilent: neither dialing, nor a broker that says nothing,
// keeps Run from returning.
func TestShutdownWhileBrokersAreSilent(t *testing.T) {
	for name, security := range map[string]Security{"plaintext": {}, "TLS": {TLS: &tls.Config{}}} {
		t.Run(name, func(t *testing.T) {
			addr, accepted := silent(t)
			config := quick(t)
			config.Security = security
			c, err := NewConsumer([]string{addr, addr}, "g", []string{"t"}, config)
			if err != nil {
				t.Fatal(err)
			}
			d := newDeduplicator(t, nil)
			r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
			<-accepted
			longest, began := transporttest.Pauses(t), time.Now()
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			took := time.Since(began)
			if pause := longest(); took-pause > dialTimeout/2 {
				t.Errorf("Run returned %v after its context ended, of which this process stood still for %v, want it not to wait for the brokers", took, pause)
			}
		})
	}
}

// TestRequestThatBeginsAfterTheRenewal: it uses connections that nobody else has any
// more, and leaves nothing behind.
func TestRequestThatBeginsAfterTheRenewal(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	others := goleak.IgnoreCurrent()
	l := newLink(k.Addrs(), "test", Security{}, []string{"t"}, time.Minute)
	client := l.client(time.Minute)
	l.renew()
	if _, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{"t"}}); err != nil {
		t.Error(err)
	}
	l.close()
	eventually(t, "nothing of it is left", func() bool { return goleak.Find(others) == nil })
}
