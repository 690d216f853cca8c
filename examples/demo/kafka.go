package main

import (
	"context"
	"strings"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafka is a broker of kfake. It speaks the real protocol and runs in this process.
type kafka struct {
	*brokertest.Kafka
	producer *kgo.Client
	marked   int
}

const partitions = 6

func startKafka() (broker, error) {
	k, err := brokertest.StartKafka(map[string]int32{ordersTopic: partitions, onceTopic: partitions}, nil)
	if err != nil {
		return nil, err
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...), kgo.DefaultProduceTopic(ordersTopic))
	if err != nil {
		k.Close()
		return nil, err
	}
	return &kafka{Kafka: k, producer: producer}, nil
}

func (k *kafka) Close() {
	k.producer.Close()
	k.Kafka.Close()
}

func (k *kafka) name() string { return "Kafka (kfake, in process)" }

func (k *kafka) source() string {
	return "kafka://" + strings.Join(k.Addrs(), ",") + "/" + ordersTopic + "?group=" + group + "&session=6s"
}

func (k *kafka) target() string { return "kafka://" + strings.Join(k.Addrs(), ",") + "/" + onceTopic }

func (k *kafka) publish(ctx context.Context, orders []order) error {
	records := make([]*kgo.Record, len(orders))
	for i, o := range orders {
		records[i] = &kgo.Record{Value: o.payload, Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: []byte(o.key)}}}
		if o.customer != "" {
			records[i].Key = []byte(o.customer)
		}
	}
	return k.producer.ProduceSync(ctx, records...).FirstErr()
}

func (k *kafka) committed() (done, all int) {
	for _, end := range k.Ends(ordersTopic) {
		all += int(end)
	}
	for _, offset := range k.Committed(group, ordersTopic) {
		done += int(offset)
	}
	return done, all
}

func (k *kafka) mark() { k.marked, _ = k.committed() }

func (k *kafka) moved() bool {
	done, all := k.committed()
	return done > k.marked || done == all
}

func (k *kafka) output(ctx context.Context) ([]received, error) {
	records, err := k.ReadTopic(ctx, onceTopic)
	if err != nil {
		return nil, err
	}
	out := make([]received, len(records))
	for i, r := range records {
		out[i].payload = string(r.Value)
		for _, h := range r.Headers {
			switch h.Key {
			case "Idempotency-Key":
				out[i].key = string(h.Value)
			case "Dedup-Ambiguous":
				out[i].ambiguous = true
			}
		}
	}
	return out, nil
}
