package work

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Callers is how many goroutines call Do at once, and InFlight how many batches
// are under way, so that the records of one travel with the claims of the next.
const (
	Callers  = 256
	InFlight = 2
)

// NewDeduplicator returns a Deduplicator as a user has it, with the defaults.
func NewDeduplicator(store driver.Store) (*dedup.Deduplicator, error) {
	return dedup.New(store, Scope, dedup.HeaderKey(), &dedup.Options{TTL: TTL})
}

// DoBatch processes b in batches, InFlight at a time.
func (b *Batch) DoBatch(ctx context.Context, d *dedup.Deduplicator) error {
	handler := func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
		b.Handled(len(ms))
		return make([]dedup.Answer, len(ms))
	}
	return b.Share(InFlight, BatchSize, func(from, to int) error {
		for ms := b.Messages[from:to]; len(ms) > 0; {
			var again []*dedup.Message // keys that the other batch holds: a broker would deliver them again
			for i, res := range d.DoBatch(ctx, ms, handler) {
				if res.Outcome == dedup.Busy {
					again = append(again, ms[i])
				} else if err := settled(ms[i], &res); err != nil {
					return err
				}
			}
			ms = again
		}
		return nil
	})
}

// Do processes b message by message, Callers at a time.
func (b *Batch) Do(ctx context.Context, d *dedup.Deduplicator) error {
	handler := func(context.Context, *dedup.Message) ([]byte, error) {
		b.Handled(1)
		return nil, nil
	}
	return b.Share(Callers, 1, func(i, _ int) error {
		res := d.Do(ctx, b.Messages[i], handler)
		return settled(b.Messages[i], &res)
	})
}

func settled(m *dedup.Message, res *dedup.Result) error {
	if res.Outcome != dedup.Processed && res.Outcome != dedup.Duplicate {
		return fmt.Errorf("message at %v: %v: %w", m.Position, res.Outcome, res.Err)
	}
	return nil
}

// Share gives pieces of b to several workers, in order, and returns when all are done.
func (b *Batch) Share(workers, size int, fn func(from, to int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for {
				to := int(next.Add(int64(size)))
				from := to - size
				if from >= len(b.Messages) {
					return
				}
				if errs[w] = fn(from, min(to, len(b.Messages))); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Ops returns the operations that claim b's messages, as a Deduplicator makes them.
func (b *Batch) Ops() []driver.Op {
	ops := make([]driver.Op, len(b.Messages))
	for i, m := range b.Messages {
		ops[i] = driver.Op{
			Kind: driver.OpClaim, ID: dedup.NewID(Scope, dedup.Key(b.Keys[i].String())), Nonce: uint64(i) + 1,
			Lease: Lease, TTL: TTL, Fingerprint: dedup.PayloadFingerprint(m), Position: m.Position,
		}
	}
	return ops
}

// Apply claims and completes by the store alone: a batch's completes travel with
// the claims of the next. A key that comes again within a batch is answered
// there, as granted to the same run.
func (b *Batch) Apply(ctx context.Context, s driver.Store, claims []driver.Op) error {
	granted := make(map[dedup.ID]bool, BatchSize)
	var ops []driver.Op
	for from := 0; ; from += BatchSize {
		completes := len(ops)
		if from < len(claims) {
			ops = append(ops, claims[from:min(from+BatchSize, len(claims))]...)
		}
		if len(ops) == 0 {
			return nil
		}
		replies, err := s.Apply(ctx, ops)
		if err != nil {
			return err
		}
		clear(granted)
		next := ops[:0]
		for i := range ops {
			switch r := &replies[i]; {
			case r.Err != nil:
				return r.Err
			case i < completes && r.Status != driver.StatusOK:
				return fmt.Errorf("complete: %v", r.Status)
			case i >= completes && r.Status == driver.StatusGranted && !granted[ops[i].ID]:
				granted[ops[i].ID] = true
				op := ops[i]
				op.Kind, op.Token = driver.OpComplete, r.Record.Token
				next = append(next, op)
				b.Handled(1)
			}
		}
		ops = next
	}
}

// Completes returns the operations that record a result for each of b's messages,
// as if it had been claimed.
func (b *Batch) Completes(result []byte) []driver.Op {
	ops := b.Ops()
	for i := range ops {
		ops[i].Kind, ops[i].Token, ops[i].Result = driver.OpComplete, 1, result
	}
	return ops
}

// CheckCompleted returns an error unless all is recorded.
func CheckCompleted(replies []driver.Reply) error {
	for i := range replies {
		if r := &replies[i]; r.Err != nil || r.Status != driver.StatusOK {
			return fmt.Errorf("complete: %v %w", r.Status, r.Err)
		}
	}
	return nil
}

// Fill records n new keys of the stream in the store, with a result.
func Fill(ctx context.Context, s driver.Store, stream *Stream, n int, result []byte) error {
	for ; n > 0; n -= driver.MaxBatch {
		replies, err := s.Apply(ctx, stream.Fresh(min(n, driver.MaxBatch)).Completes(result))
		if err != nil {
			return err
		}
		if err := CheckCompleted(replies); err != nil {
			return err
		}
	}
	return nil
}
