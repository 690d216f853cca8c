package redisstore_test

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a store on server with a client of its own. It is patient, if o does
// not say otherwise.
func open(t *testing.T, server *redistest.Server, o *redisstore.Options) *redisstore.Store {
	t.Helper()
	options := patient
	if o != nil {
		options = *o
	}
	options.Timeout = cmp.Or(options.Timeout, patient.Timeout)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ReadTimeout: -1})
	t.Cleanup(func() { _ = client.Close() })
	s, err := redisstore.New(client, &options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func claim(key dedup.Key, nonce uint64) driver.Op {
	return driver.Op{
		Kind: driver.OpClaim, ID: dedup.NewID("test", key), Nonce: nonce, Lease: time.Minute, TTL: time.Hour,
		Fingerprint: driver.Fingerprint{1}, Position: driver.Position{Source: "orders", Partition: 1, Offset: 2},
	}
}

func complete(op driver.Op, token driver.Token) driver.Op {
	return driver.Op{Kind: driver.OpComplete, ID: op.ID, Token: token, TTL: op.TTL, Fingerprint: op.Fingerprint, Position: op.Position}
}

// apply applies ops and wants an answer to each.
func apply(t *testing.T, s *redisstore.Store, ops ...driver.Op) []driver.Reply {
	t.Helper()
	replies, err := s.Apply(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range replies {
		if r.Err != nil {
			t.Fatalf("%v: %v", ops[i].Kind, r.Err)
		}
	}
	return replies
}

func granted(t *testing.T, s *redisstore.Store, op driver.Op) driver.Record {
	t.Helper()
	r := apply(t, s, op)[0]
	if r.Status != driver.StatusGranted {
		t.Fatalf("claim: got %v, want granted", r.Status)
	}
	return r.Record
}

func vouch(t *testing.T, s *redisstore.Store) driver.Vouch {
	t.Helper()
	v, err := s.Vouch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wants checks that err is one line with each of the words.
func wants(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: got no error, want one with %q", what, words)
		return
	}
	for _, w := range append(words, "redisstore: ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: got error %q, want one with %q", what, err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: got error %q, want one line", what, err)
	}
}

func flushScripts(t *testing.T, server *redistest.Server) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	if err := client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// logged collects what is logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
