package redisbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// Metrics of ours, per message.
const (
	roundTrips = "round trips" // reads of the server from its connections
	fileBytes  = "AOF B"
)

// contest prepares the server, does the work inside timed, and checks the work.
type contest func(ctx context.Context, r *harness.Round, s *server) error

// benchmarkShare is the greatest share of the messages.
const benchmarkShare = 1.5

// round starts a server with keys in it. Redis doubles its tables when they are full,
// and is slower for a while: so there are keys for five eighths of a table that has
// room for those of the round.
func round(ctx context.Context, r *harness.Round, messages int, cluster bool, fn contest) (err error) {
	s, err := start(ctx, r.Dir, cluster)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	table := 1024
	for table*3/8 < int(benchmarkShare*float64(messages))+100 {
		table *= 2
	}
	if err := s.fill(ctx, table*5/8); err != nil {
		return err
	}
	r.Server(s.cmd.Process.Pid)
	return fn(ctx, r, s)
}

// timed does the work while the clock runs.
func (s *server) timed(ctx context.Context, r *harness.Round, fn func() error) error {
	type counts struct {
		table       int
		reads, file float64
	}
	read := func() (c counts, err error) {
		if c.table, err = s.settledTable(ctx); err == nil {
			c.reads, err = s.info(ctx, "total_reads_processed")
		}
		if err == nil {
			c.file, err = s.info(ctx, "aof_current_size", "aof_buffer_length")
		}
		return c, err
	}
	before, err := read()
	if err != nil {
		return err
	}
	r.Start()
	err = fn()
	r.Stop()
	if err != nil {
		return err
	}
	after, err := read()
	if err == nil && after.table != before.table {
		err = fmt.Errorf("the table of keys grew from %d to %d in the round", before.table, after.table)
	}
	r.Count(roundTrips, after.reads-before.reads)
	r.Count(fileBytes, after.file-before.file)
	return err
}

// ours is our store under a Deduplicator.
func ours(run func(*work.Batch, context.Context, *dedup.Deduplicator) error) contest {
	return func(ctx context.Context, r *harness.Round, s *server) (err error) {
		d, end, err := s.deduplicator(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
		b := work.New(1).Next(r.Messages)
		if err := s.timed(ctx, r, func() error { return run(b, ctx, d) }); err != nil {
			return err
		}
		return b.Check()
	}
}

// deduplicator returns a Deduplicator on a new store, and a function that ends both.
func (s *server) deduplicator(ctx context.Context) (*dedup.Deduplicator, func() error, error) {
	client := s.client(0)
	// The messages are as old as the store, and nobody processed one before.
	store, err := redisstore.New(client, &redisstore.Options{VouchFrom: time.Now().Add(-2 * work.TTL)})
	if err == nil {
		err = store.Check(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	d, err := work.NewDeduplicator(store)
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return d, func() error { return errors.Join(d.Shutdown(ctx), client.Close()) }, nil
}
