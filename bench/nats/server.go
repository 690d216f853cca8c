package natsbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
)

// stall is how long a full window is waited for. The client library's 200ms are not
// enough on a machine that is busy.
var stall = jetstream.WithStallWait(time.Minute)

// server is a nats-server with the streams that were asked for.
type server struct {
	cmd     *exec.Cmd
	url     string
	js      jetstream.JetStream
	streams map[string]*work.Batch // their messages
	made    int                    // consumers and streams
}

// build compiles the server that the tests of the main module use.
func build(dir string) (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/oncequeue/oncequeue").Output()
	if err != nil {
		return "", harness.Skip("go, to compile nats-server with: " + err.Error())
	}
	binary := filepath.Join(dir, "nats-server")
	cmd := exec.Command("go", "build", "-o", binary, "github.com/nats-io/nats-server/v2")
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", harness.Skip(fmt.Sprintf("nats-server, which did not compile: %v: %s", err, out))
	}
	return binary, nil
}

func startServer(dir string) (*server, error) {
	binary, err := build(dir)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	s := &server{url: "nats://" + host + ":" + port, streams: make(map[string]*work.Batch)}
	s.cmd = exec.Command(binary, "--addr", host, "--port", port, "--jetstream", "--store_dir", filepath.Join(dir, "nats"))
	s.cmd.Stderr = nil
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if s.js, err = s.connect(); err == nil {
			return s, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.Join(err, s.stop())
}

func (s *server) stop() error {
	if s.js != nil {
		s.js.Conn().Close()
	}
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait() // it ends with the signal as its code
	return nil
}

func (s *server) connect() (jetstream.JetStream, error) {
	conn, err := nats.Connect(s.url, nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	return jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(window))
}

// stream makes a stream of n messages, once, and returns its name and its messages.
func (s *server) stream(ctx context.Context, n int, duplicates bool) (string, *work.Batch, error) {
	name := fmt.Sprintf("s%d-%v", n, duplicates)
	if b := s.streams[name]; b != nil {
		return name, b, nil
	}
	if _, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
		return "", nil, err
	}
	b := work.New(1).Fresh(n)
	if duplicates {
		b = work.New(1).Next(n)
	}
	for _, m := range b.Messages {
		if _, err := s.js.PublishMsgAsync(asNATS(name, m), stall); err != nil {
			return "", nil, err
		}
	}
	select {
	case <-s.js.PublishAsyncComplete():
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	s.streams[name] = b
	return name, b, nil
}

func asNATS(subject string, m *dedup.Message) *nats.Msg {
	out := nats.NewMsg(subject)
	out.Data = m.Value
	for _, h := range m.Headers {
		out.Header[h.Key] = []string{string(h.Value)}
	}
	return out
}

// name returns a new one.
func (s *server) name(kind string) string {
	s.made++
	return fmt.Sprintf("%s%d", kind, s.made)
}
