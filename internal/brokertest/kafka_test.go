package brokertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func records(topic string, from, n int) []*kgo.Record {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: fmt.Append(nil, from+i)}
	}
	return rs
}

func TestKafkaKeepsTopicsAcrossRestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	k := NewKafka(t, map[string]int32{"t": 2, "empty": 3}, &KafkaOptions{Brokers: 2, Durable: true})
	if err := k.Produce(ctx, true, records("t", 0, 10)...); err != nil {
		t.Fatal(err)
	}
	addrs := fmt.Sprint(k.Addrs())
	k.Stop()
	if c, err := net.Dial("tcp", k.Addrs()[0]); err == nil {
		_ = c.Close()
		t.Error("a stopped broker accepted a connection")
	}
	if err := k.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(k.Addrs()); got != addrs {
		t.Errorf("addresses after the restart: got %s, want %s", got, addrs)
	}
	if err := k.Produce(ctx, true, records("t", 10, 10)...); err != nil {
		t.Fatal(err)
	}
	rs, err := k.ReadTopic(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if len(rs) != 20 {
		t.Errorf("got %d records, want 20", len(rs))
	}
	for i, r := range rs {
		if want := fmt.Sprint(i%10*2 + i/10); string(r.Value) != want {
			t.Errorf("record %d: got %s, want %s", i, r.Value, want)
		}
	}
	if rs, err := k.ReadTopic(ctx, "empty"); err != nil || len(rs) != 0 {
		t.Errorf("empty topic: got %d records, %v", len(rs), err)
	}
	if got := k.Ends("t"); got[0] != 10 || got[1] != 10 {
		t.Errorf("ends: got %v, want 10 and 10", got)
	}
	if got := k.Committed("nobody", "t"); len(got) != 0 {
		t.Errorf("commits of an unknown group: got %v, want none", got)
	}
}

func TestKafkaRestartNeedsDurable(t *testing.T) {
	k := NewKafka(t, nil, nil)
	if err := k.Restart(); err == nil {
		t.Error("got nil, want an error")
	}
}

func TestKafkaCutConnections(t *testing.T) {
	k := NewKafka(t, nil, nil)
	c, err := net.Dial("tcp", k.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	for { // the broker may not have accepted it yet
		k.CutConnections()
		select {
		case err := <-done:
			var e net.Error
			if errors.As(err, &e) && e.Timeout() {
				t.Error("the connection was not cut")
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}
