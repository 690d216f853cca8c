package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

var applyRules = []rule{
	{"empty batch", func(s *suite) {
		for _, ops := range [][]driver.Op{nil, {}} {
			replies, err := s.store.Apply(s.t.Context(), ops)
			if err != nil || len(replies) != 0 {
				s.t.Errorf("Apply of no ops: got %d replies and error %v, want none", len(replies), err)
			}
		}
	}},
	{"ops on one key act in order", func(s *suite) {
		id := s.id()
		got := s.apply(claim(id, 1), claim(id, 2), claim(id, 1))
		s.statuses(got, driver.StatusGranted, driver.StatusHeld, driver.StatusGranted)
		token := got[0].Record.Token
		s.same("repeated claim", got[2].Record, got[0].Record)

		got = s.apply(release(id, token), release(id, token), claim(id, 2), claim(id, 3))
		s.statuses(got, driver.StatusOK, driver.StatusLost, driver.StatusGranted, driver.StatusHeld)
		if got[2].Record.Token <= token {
			s.t.Errorf("Token of the second grant: got %d, want more than %d", got[2].Record.Token, token)
		}
		token = got[2].Record.Token

		got = s.apply(extend(id, token), complete(id, token, "result"), claim(id, 4), extend(id, token), park(id, token, "reason"), release(id, token))
		s.statuses(got, driver.StatusOK, driver.StatusOK, driver.StatusDone, driver.StatusLost, driver.StatusOK, driver.StatusLost)
		for i, reply := range got[1:] {
			if string(reply.Record.Result) != "result" {
				s.t.Errorf("reply %d: got result %q, want what was recorded first", i+1, reply.Record.Result)
			}
		}
	}},
	{"replies show the record after their own op", func(s *suite) {
		id, r := s.granted()
		got := s.apply(release(id, r.Token), claim(id, 2))
		if got[0].Record.State != driver.StateReleased || got[1].Record.State != driver.StateClaimed {
			s.t.Errorf("got %v, %v, want released, then claimed", got[0].Record.State, got[1].Record.State)
		}
	}},
	{"ops are independent", func(s *suite) {
		held, _ := s.granted()
		mine, r := s.granted()
		done, d := s.granted()
		s.want(complete(done, d.Token, "result"), driver.StatusOK)
		conflict := claim(done, 2)
		conflict.Fingerprint = otherPrint
		got := s.apply(
			extend(s.id(), 1), claim(held, 2), complete(mine, r.Token, "result"), conflict,
			claim(s.id(), 1), release(held, 1), claim(done, 2), park(s.id(), 1, "reason"),
		)
		s.statuses(got,
			driver.StatusLost, driver.StatusHeld, driver.StatusOK, driver.StatusConflict,
			driver.StatusGranted, driver.StatusLost, driver.StatusDone, driver.StatusOK)
		s.want(claim(mine, 2), driver.StatusDone)
	}},
	{"a full batch", func(s *suite) {
		claims := make([]driver.Op, driver.MaxBatch)
		for i := range claims {
			claims[i] = claim(s.id(), 1)
		}
		var next []driver.Op
		for i, reply := range s.apply(claims...) {
			if reply.Status != driver.StatusGranted {
				s.t.Fatalf("claim %d: got %v, want granted", i, reply.Status)
			}
			next = append(next, complete(claims[i].ID, reply.Record.Token, fmt.Sprint("result ", i)))
		}
		for i, reply := range s.apply(next...) {
			if want := fmt.Sprint("result ", i); reply.Status != driver.StatusOK || string(reply.Record.Result) != want {
				s.t.Fatalf("complete %d: got %v with %q, want ok with %q", i, reply.Status, reply.Record.Result, want)
			}
		}
		for i, reply := range s.apply(claims...) {
			if want := fmt.Sprint("result ", i); reply.Status != driver.StatusDone || string(reply.Record.Result) != want {
				s.t.Fatalf("claim %d: got %v with %q, want done with %q", i, reply.Status, reply.Record.Result, want)
			}
		}
	}},
	{"values survive", func(s *suite) {
		ids := []driver.ID{{}, bytes16(0xff), bytes16('\n'), {1}, {15: 1}}
		results := [][]byte{nil, {}, {0}, []byte("\x00\xff\r\n'\"\\"), bytes.Repeat([]byte{0, 1, 0xfe}, 64<<10/3)}
		positions := []driver.Position{
			{},
			{Source: "orders", Partition: math.MaxInt32, Offset: math.MaxInt64},
			{Source: "großer Strom/日本 \x00|", Partition: 0, Offset: 1 << 53},
			{Source: "x", Partition: -1, Offset: -1},
			{Source: "y", Partition: 1, Offset: 1<<53 + 1},
		}
		for i, id := range ids {
			op := claim(id, math.MaxUint64-uint64(i))
			op.Position = positions[i]
			op.Fingerprint = driver.Fingerprint{0xff, 0, byte(i)}
			r := s.want(op, driver.StatusGranted)
			s.same("granted", r, driver.Record{
				State: driver.StateClaimed, Token: r.Token, Nonce: op.Nonce,
				LeaseEnd: s.now().Add(lease), Expires: s.now().Add(lease + ttl),
				FirstSeen: s.now(), First: positions[i], Fingerprint: op.Fingerprint, Held: positions[i],
			})
			other := op
			other.Nonce--
			s.same("held", s.want(other, driver.StatusHeld), r)
			end := complete(id, r.Token, string(results[i]))
			if results[i] == nil {
				end.Result = nil
			}
			r = dropLease(r)
			r.State, r.Nonce, r.Result = driver.StateDone, 0, results[i]
			r.Expires = s.now().Add(ttl)
			s.same("done", s.want(end, driver.StatusOK), r)
			s.same("answer", s.want(op, driver.StatusDone), r)
		}
	}},
	{"many attempts", func(s *suite) {
		id, r := s.granted()
		for i := range 300 {
			got := s.apply(release(id, r.Token), claim(id, uint64(i+2)))
			s.statuses(got, driver.StatusOK, driver.StatusGranted)
			r = got[1].Record
			if r.Attempt != i+1 {
				s.t.Fatalf("Attempt: got %d, want %d", r.Attempt, i+1)
			}
		}
	}},
	{"does not keep ops", func(s *suite) {
		for _, kind := range []driver.OpKind{driver.OpComplete, driver.OpPark} {
			id, r := s.granted()
			result := []byte("result")
			op := settle(kind, id, r.Token, "")
			op.Result = result
			ops := []driver.Op{op}
			replies := s.apply(ops...)
			copy(result, "XXXXXX")
			ops[0] = driver.Op{}
			if got := replies[0].Record.Result; string(got) != "result" {
				s.t.Errorf("%v: the reply changed with the op: got %q", kind, got)
			}
			if got := s.apply(claim(id, 2))[0].Record.Result; string(got) != "result" {
				s.t.Errorf("%v: the record changed with the op: got %q", kind, got)
			}
		}
	}},
	{"does not change ops", func(s *suite) {
		id, r := s.granted()
		result := []byte("result")
		ops := []driver.Op{complete(id, r.Token, ""), claim(id, 2)}
		ops[0].Result = result
		s.apply(ops...)
		want := []driver.Op{complete(id, r.Token, "result"), claim(id, 2)}
		if got := fmt.Sprintf("%+v", ops); got != fmt.Sprintf("%+v", want) {
			s.t.Errorf("ops after Apply: got %s, want %+v", got, want)
		}
	}},
	{"results belong to the caller", func(s *suite) {
		id, r := s.granted()
		done := s.want(complete(id, r.Token, "result"), driver.StatusOK)
		copy(done.Result, "XXXXXX")
		_ = append(done.Result, "YYY"...)
		got := s.apply(claim(id, 2), claim(id, 3))
		copy(got[0].Record.Result, "ZZZZZZ")
		if r := got[1].Record.Result; string(r) != "result" {
			s.t.Errorf("two replies share a result: got %q", r)
		}
		if r := s.want(claim(id, 4), driver.StatusDone).Result; string(r) != "result" {
			s.t.Errorf("the record changed with a reply: got %q", r)
		}
	}},
	{"ended context", func(s *suite) {
		why := errors.New("the caller gave up")
		ctx, cancel := context.WithCancelCause(s.t.Context())
		cancel(why)
		id, r := s.granted()
		for _, op := range []driver.Op{claim(s.id(), 1), complete(id, r.Token, "result")} {
			replies, err := s.store.Apply(ctx, []driver.Op{op})
			if err == nil {
				s.t.Fatalf("%v under an ended context: got replies %+v, want an error", op.Kind, replies)
			}
			if !errors.Is(err, context.Canceled) && !errors.Is(err, why) {
				s.t.Errorf("%v under an ended context: got error %q, want one that matches the context's", op.Kind, err)
			}
			if op.Kind == driver.OpClaim {
				s.want(claim(op.ID, 2), driver.StatusGranted)
			}
		}
		s.same("untouched", s.want(claim(id, 2), driver.StatusHeld), r)
	}},
}

// statuses wants the replies to have these statuses.
func (s *suite) statuses(replies []driver.Reply, want ...driver.Status) {
	s.t.Helper()
	var got []driver.Status
	for _, reply := range replies {
		got = append(got, reply.Status)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Fatalf("statuses: got %v, want %v", got, want)
	}
}

func bytes16(b byte) (id driver.ID) {
	for i := range id {
		id[i] = b
	}
	return id
}
