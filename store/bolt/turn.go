package boltstore

import (
	"context"

	"github.com/oncequeue/oncequeue/dedup"
)

// A batch reads the records of its keys and decides while the one before it is being
// written: the first takes a processor, the second a disk, and both about as long. So
// there are two rights: the turn, to make a batch, and the writer's, to write one to
// the log. They are taken in this order, which is thus that of the batches; whoever
// changes anything else of the log has both. Each is a channel with one value in it,
// and who took that out has the right.

// take takes a right out, unless done is closed first.
func take(right chan struct{}, done <-chan struct{}) bool {
	select {
	case <-right:
		return true
	case <-done:
		return false
	}
}

func give(right chan struct{}) { right <- struct{}{} }

// batchOf makes a batch of ops and fills in their replies. It returns with the right
// to write that batch; after an error nothing has happened.
func (s *Store) batchOf(ctx context.Context, ops []dedup.Op, replies []dedup.Reply) (*batch, error) {
	if !take(s.turn, ctx.Done()) {
		return nil, ctx.Err()
	}
	defer give(s.turn)
	if err := s.failed(); err != nil {
		return nil, err
	}
	b := s.newBatch()
	answered := b.answer(ops, replies)
	if !take(s.writer, ctx.Done()) {
		b.end()
		return nil, ctx.Err()
	}
	if err := s.failed(); err != nil { // by the batch before
		b.end()
		give(s.writer)
		return nil, err
	}
	if full := s.refusal(ops); full != nil || !answered {
		b.end()
		b = s.newBatch()
		b.full = full
		b.answer(ops, replies)
	}
	s.mu.Lock()
	s.writing = b
	s.mu.Unlock()
	return b, nil
}

// beginWrite waits for both rights. It is followed by endWrite.
func (s *Store) beginWrite(ctx context.Context) error {
	if !s.takeAll(ctx.Done()) {
		return ctx.Err()
	}
	err := s.failed()
	if err != nil {
		s.endWrite()
	}
	return err
}

// asWriter runs fn with both rights.
func (s *Store) asWriter(fn func() error) error {
	if !s.takeAll(s.stop) {
		return errStopped
	}
	defer s.endWrite()
	if err := s.failed(); err != nil {
		return err
	}
	return fn()
}

func (s *Store) takeAll(done <-chan struct{}) bool {
	if !take(s.turn, done) {
		return false
	}
	if !take(s.writer, done) {
		give(s.turn)
		return false
	}
	return true
}

func (s *Store) endWrite() {
	give(s.writer)
	give(s.turn)
}

// failed returns why nothing works any more, or nil.
func (s *Store) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
