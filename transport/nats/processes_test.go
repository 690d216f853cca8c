package natstransport

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
)

const (
	memberAckWait = time.Second
	memberLease   = 2 * time.Second
	memberEnv     = "ONCEQUEUE_TEST_MEMBER" // "name hub-address nats-url stream"
)

// TestMember is not a test but the body of a member's process.
func TestMember(t *testing.T) {
	var name, hub, url, stream string
	if n, _ := fmt.Sscan(os.Getenv(memberEnv), &name, &hub, &url, &stream); n != 4 {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client, err := transporttest.DialHub(hub, name)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := NewConsumer(js, stream, "c", quick(t))
	if err != nil {
		t.Fatal(err)
	}
	d := newDeduplicatorOver(t, client, &dedup.Options{Lease: memberLease, Hooks: client.Hooks()})
	if err := consumer.Run(ctx, d, client.Handle); err != nil {
		t.Error(err)
	}
}

func startMember(t *testing.T, hub *transporttest.Hub, name, url, stream string) *transporttest.Process {
	t.Helper()
	return transporttest.StartProcess(t, name, "TestMember", fmt.Sprintf("%s=%s %s %s %s", memberEnv, name, hub.Addr, url, stream))
}

func TestProcessKilledInItsHandlers(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = memberAckWait })
	testKilled(t, js, n.URL(), "S", 1000)
}

// Two members, each a process of its own, share a store that lives in this one. One
// of them is killed while it runs handlers: the other takes over what it held, and
// is told.
func testKilled(t *testing.T, js jetstream.JetStream, url, stream string, messages int) {
	hub := transporttest.StartHub(t)
	publishTo(t, js, stream, 0, messages)
	publishTo(t, js, stream, 0, messages/5) // again
	victim, survivor := startMember(t, hub, "victim", url, stream), startMember(t, hub, "survivor", url, stream)
	eventually(t, "both members to run handlers", func() bool { return hub.Running("victim") > 0 && hub.Running("survivor") > 0 })
	eventually(t, "a quarter to be done", func() bool { return hub.Done() > messages/4 })
	release := hub.Hold("victim")
	eventually(t, "the victim to run a handler", func() bool { return hub.Running("victim") > 0 })
	victim.Kill()
	release()
	answeredIn(t, js, stream)
	survivor.Stop()
	ambiguous := hub.Check(t, messages)
	if ambiguous == 0 {
		t.Error("got no Ambiguous run: the kill hit no handler")
	}
	t.Logf("%d runs were Ambiguous", ambiguous)
}

// A backlog of which half are retries is consumed by two processes, of which one is
// killed and started again, over and over.
func testBacklogKilled(t *testing.T, js jetstream.JetStream, url, stream string, messages int) {
	publishBacklog(t, js, stream, messages)
	hub := transporttest.StartHub(t)
	steady := startMember(t, hub, "steady", url, stream)
	kills := 0
	for ; hub.Done() < messages/2; kills++ {
		victim := startMember(t, hub, "victim", url, stream)
		before, ofVictim := hub.Done(), hub.Decided("victim", dedup.Processed)
		eventually(t, "some handled, by the victim too", func() bool {
			done := hub.Done()
			return done > before+messages/80 && hub.Decided("victim", dedup.Processed) > ofVictim || done >= messages/2
		})
		victim.Kill()
	}
	answeredIn(t, js, stream)
	steady.Stop()
	t.Logf("%d kills, %d runs were Ambiguous", kills, hub.Check(t, messages/2))
}

func TestProcessStoppedInItsHandler(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = memberAckWait })
	testStopped(t, js, n.URL(), "S")
}

// A member is stopped for longer than AckWait and its lease, as by a pause of the
// machine. When it goes on, and its handler ends, what that did is refused, and the
// message is not acknowledged: another runs it by then.
func testStopped(t *testing.T, js jetstream.JetStream, url, stream string) {
	hub := transporttest.StartHub(t)
	finishVictim, finishOther := hub.Hold("victim"), hub.Hold("other")
	publishTo(t, js, stream, 0, 1)
	victim := startMember(t, hub, "victim", url, stream)
	eventually(t, "the victim to run the handler", func() bool { return hub.Running("victim") == 1 })
	victim.Signal(syscall.SIGSTOP)
	other := startMember(t, hub, "other", url, stream)
	eventually(t, "the other to run it", func() bool { return hub.Running("other") == 1 })
	victim.Signal(syscall.SIGCONT)
	finishVictim()
	eventually(t, "the victim's record to be refused", func() bool { return hub.Decided("victim", dedup.Uncertain) == 1 })
	victim.Stop() // which sends what is still to be sent
	if got := infoOf(t, js, stream).NumAckPending; got != 1 {
		t.Errorf("without an acknowledgement: got %d, want 1: the victim must not acknowledge", got)
	}
	finishOther()
	answeredIn(t, js, stream)
	other.Stop()
	if got := hub.Check(t, 1); got != 1 {
		t.Errorf("got %d Ambiguous runs, want the other's", got)
	}
	if got := hub.Decided("other", dedup.Processed); got != 1 {
		t.Errorf("processed by the other: got %d, want 1", got)
	}
}
