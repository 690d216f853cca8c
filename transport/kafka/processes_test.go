package kafkatransport

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
)

// Two members of one group, each a process of its own, share a store that lives
// in this one. One of them is killed while it runs handlers.
func TestProcessKilledInItsHandlers(t *testing.T) {
	const (
		messages = 4000 // and every fifth again
		keys     = 200
	)
	k := brokertest.NewKafka(t, map[string]int32{"t": 12}, nil)
	hub := transporttest.StartHub(t)
	var records []*kgo.Record
	for i, r := range numbered("t", 0, messages, keys) {
		records = append(records, r)
		if i%5 == 0 {
			again := *r
			again.Headers = r.Headers
			records = append(records, &again)
		}
	}
	produce(t, k, records...)

	const session = 3 * time.Second // for which the survivor waits
	victim, survivor := startMember(t, hub, k.Addrs(), "t", "victim", session), startMember(t, hub, k.Addrs(), "t", "survivor", session)
	eventually(t, "both members to run handlers", func() bool { return hub.Running("victim") > 0 && hub.Running("survivor") > 0 })
	eventually(t, "a quarter to be done", func() bool { return hub.Done() > messages/4 })
	release := hub.Hold("victim") // so that the kill hits handlers
	eventually(t, "the victim to run a handler", func() bool { return hub.Running("victim") > 0 })
	victim.Kill()
	release()
	eventually(t, "the rest to be committed", func() bool { return complete(k, "g-t", "t") })
	survivor.Stop()

	ambiguous := hub.Check(t, messages)
	hub.CheckOrder(t)
	if ambiguous == 0 {
		t.Error("got no Ambiguous run: the kill hit no handler")
	}
	t.Logf("%d runs were Ambiguous", ambiguous)
}

const memberEnv = "ONCEQUEUE_TEST_MEMBER" // "name hub-address broker-addresses topic session-in-ms"

func startMember(t *testing.T, h *transporttest.Hub, brokers []string, topic, name string, session time.Duration) *transporttest.Process {
	t.Helper()
	return transporttest.StartProcess(t, name, "TestMember", fmt.Sprintf("%s=%s %s %s %s %d",
		memberEnv, name, h.Addr, strings.Join(brokers, ","), topic, session.Milliseconds()))
}

// TestMember is not a test but the body of a member's process.
func TestMember(t *testing.T) {
	var name, hubAddr, brokers, topic string
	var session time.Duration
	if n, _ := fmt.Sscan(os.Getenv(memberEnv), &name, &hubAddr, &brokers, &topic, &session); n != 5 {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	hub, err := transporttest.DialHub(hubAddr, name)
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	d := newDeduplicatorOver(t, hub, &dedup.Options{Lease: 2 * time.Second})
	config := quick(t)
	config.SessionTimeout = session * time.Millisecond
	consumer, err := NewConsumer(strings.Split(brokers, ","), "g-"+topic, []string{topic}, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Run(ctx, d, hub.Handle); err != nil {
		t.Error(err)
	}
}
