package kafkatransport

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// framed adds the size and the correlation id.
func framed(correlation int32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	return append(binary.BigEndian.AppendUint32(b, uint32(correlation)), body...)
}

// TestSubscriptionsAreWhatOthersRead: a join goes through the connection, in pieces of
// every size. The broker gets a subscription of version 0, and kafka-go one that ends
// where it stops reading.
func TestSubscriptionsAreWhatOthersRead(t *testing.T) {
	ours := kmsg.NewConsumerMemberMetadata()
	ours.Version, ours.Topics, ours.UserData = 0, []string{"t", "u"}, []byte("data")
	subscription := ours.AppendTo(nil)
	lying := slices.Clone(subscription)
	lying[1] = 1 // as kafka-go writes it
	theirs := ours
	theirs.Version, theirs.Generation = 3, 7
	theirs.OwnedPartitions = []kmsg.ConsumerMemberMetadataOwnedPartition{{Topic: "t", Partitions: []int32{1, 2}}}
	null := kmsg.NewConsumerMemberMetadata()
	null.Version, null.Topics = 1, []string{"t"}

	for _, version := range []int16{1, 2} {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.ProtocolType, req.SessionTimeoutMillis = version, "g", "consumer", 30000
		for _, name := range []string{"range", "roundrobin"} {
			p := kmsg.NewJoinGroupRequestProtocol()
			p.Name, p.Metadata = name, lying
			req.Protocols = append(req.Protocols, p)
		}
		request := kmsg.NewRequestFormatter(kmsg.FormatterClientID("me")).AppendRequest(nil, req, 5)
		res := kmsg.NewPtrJoinGroupResponse()
		res.Version, res.LeaderID, res.MemberID, res.Generation = version, "a", "a", 9
		for id, s := range map[string][]byte{"a": subscription, "java": theirs.AppendTo(nil), "null": null.AppendTo(nil)} {
			m := kmsg.NewJoinGroupResponseMember()
			m.MemberID, m.ProtocolMetadata = id, s
			res.Members = append(res.Members, m)
		}
		heartbeat := framed(4, []byte{0, 0}) // of another request, before it
		answers := append(heartbeat, framed(5, res.AppendTo(nil))...)
		answers = append(answers, framed(6, []byte{0, 27})...)
		for size := 1; size < 64; size += 3 {
			client, broker := net.Pipe()
			c := newGroupConn(client)
			go func() {
				for b := range slices.Chunk(request, size) {
					_, _ = c.Write(b)
				}
			}()
			sent := make([]byte, len(request))
			if _, err := io.ReadFull(broker, sent); err != nil {
				t.Fatal(err)
			}
			sentReq := kmsg.NewPtrJoinGroupRequest()
			sentReq.Version = version
			if err := sentReq.ReadFrom(sent[4+2+2+4+2+len("me"):]); err != nil {
				t.Fatal(err)
			}
			for _, p := range sentReq.Protocols {
				if !slices.Equal(p.Metadata, subscription) {
					t.Errorf("version %d, %s: got subscription %x, want %x", version, p.Name, p.Metadata, subscription)
				}
			}
			go func() {
				for b := range slices.Chunk(answers, size) {
					_, _ = broker.Write(b)
				}
				_ = broker.Close()
			}()
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[:len(heartbeat)], heartbeat) || !slices.Equal(got[len(got)-10:], answers[len(answers)-10:]) {
				t.Errorf("got other answers changed: %x", got)
			}
			got = got[len(heartbeat) : len(got)-10]
			if n := binary.BigEndian.Uint32(got); int(n) != len(got)-4 {
				t.Errorf("got a size of %d for %d bytes", n, len(got)-4)
			}
			gotRes := kmsg.NewPtrJoinGroupResponse()
			gotRes.Version = version
			if err := gotRes.ReadFrom(got[8:]); err != nil {
				t.Fatal(err)
			}
			for _, m := range gotRes.Members {
				want := subscription
				switch m.MemberID {
				case "java":
					want = slices.Clone(subscription)
					want[1] = 3
				case "null":
					want = null.AppendTo(nil)
					want = want[:len(want)-4] // no owned partitions
				}
				if !slices.Equal(m.ProtocolMetadata, want) {
					t.Errorf("version %d, member %s: got %x, want %x", version, m.MemberID, m.ProtocolMetadata, want)
				}
			}
			_ = client.Close()
		}
	}
}

// TestGroupIsSharedWithFranzGo: a franz-go member shares the group, whoever came first and
// so leads it.
func TestGroupIsSharedWithFranzGo(t *testing.T) {
	for _, first := range []string{"ours", "theirs"} {
		t.Run(first, func(t *testing.T) {
			const n = 400
			k := brokertest.NewKafka(t, map[string]int32{"t": 4}, nil)
			c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
			j := newJournal()
			var mu sync.Mutex
			seen := map[string]bool{}
			both := func() int {
				mu.Lock()
				defer mu.Unlock()
				all := len(seen)
				j.mu.Lock()
				defer j.mu.Unlock()
				for v := range j.runs {
					if !seen[v] {
						all++
					}
				}
				return all
			}
			ours := func() { start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) }) }
			var cl *kgo.Client
			theirs := func() {
				var err error
				cl, err = kgo.NewClient(kgo.SeedBrokers(k.Addrs()...), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.Balancers(kgo.RangeBalancer()),
					kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.HeartbeatInterval(100*time.Millisecond))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				polled := make(chan struct{})
				go func() {
					defer close(polled)
					for ctx.Err() == nil {
						cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
							mu.Lock()
							defer mu.Unlock()
							seen[string(r.Value)] = true
						})
					}
				}()
				t.Cleanup(func() {
					cancel()
					<-polled
					cl.Close()
				})
			}
			join := []func(){ours, theirs}
			if first == "theirs" {
				join = []func(){theirs, ours}
			}
			join[0]()
			eventually(t, "the first has joined", func() bool {
				g := k.Cluster().GroupInfo("g")
				return g != nil && g.State == "Stable" && len(g.Members) == 1
			})
			join[1]()
			eventually(t, "both hold two partitions", func() bool {
				g := k.Cluster().GroupInfo("g")
				return g != nil && g.State == "Stable" && len(g.Members) == 2 && c.Status().well(2)
			})
			records := numbered("t", 0, n, n)
			for i, r := range records {
				r.Partition = int32(i % 4)
			}
			pinned(t, k, records...)
			eventually(t, "all is consumed", func() bool { return both() == n })
			if got := j.seen(); got != n/2 {
				t.Errorf("got %d messages here, want half of %d", got, n)
			}
		})
	}
}
