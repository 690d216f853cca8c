package redisstore_test

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// testStep drives the scripts and driver.Step with the same random operations and
// clocks, which go back too, and wants the same replies and records.
func testStep(t *testing.T, s *redisstore.Store, setTime func(time.Time)) {
	start := time.Now().AddDate(10, 0, 0).Truncate(time.Second)
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		now := start
		setTime(now)
		ids := []driver.ID{dedup.NewID(t.Name(), dedup.Key(fmt.Sprint(runs, "a"))), dedup.NewID(t.Name(), dedup.Key(fmt.Sprint(runs, "b")))}
		records, highest := make(map[driver.ID]driver.Record), make(map[driver.ID]driver.Token)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			us := rapid.Int64Range(-2e6, 9e6).Draw(rt, "advance, us")
			now = now.Add(time.Duration(us) * time.Microsecond)
			setTime(now)
			op := drawOp(rt, rapid.SampledFrom(ids).Draw(rt, "id"), records)
			replies, err := s.Apply(t.Context(), []driver.Op{op})
			for tries := 0; op.Kind == driver.OpExtend && err == nil && replies[0].Err != nil && tries < 20; tries++ {
				replies, err = s.Apply(t.Context(), []driver.Op{op}) // a renewal gives up early, and may be sent again
			}
			if err != nil || replies[0].Err != nil {
				rt.Fatalf("%+v: got errors %v, %v", op, err, replies[0].Err)
			}
			// The store keeps milliseconds, and a token also of what it forgot.
			ms := now.Truncate(time.Millisecond)
			// Every token of this process raises the floor of the next.
			next := max(driver.Token(now.UnixMicro()), op.Floor+1, highest[op.ID]+1, replies[0].Record.Token)
			after, want := driver.Step(records[op.ID], op, ms, next)
			if got := normal(replies[0]); !reflect.DeepEqual(got, normal(want)) {
				rt.Fatalf("%+v at %v on %+v:\ngot  %+v\nwant %+v", op, ms, records[op.ID], got, normal(want))
			}
			if got, err := s.Lookup(t.Context(), op.ID); err != nil || !reflect.DeepEqual(normal(driver.Reply{Record: got}), normal(driver.Reply{Record: living(after, ms)})) {
				rt.Fatalf("Lookup after %+v at %v: got %+v, %v, want %+v", op, ms, got, err, living(after, ms))
			}
			if want.Status == driver.StatusGranted && want.Record.Token < highest[op.ID] {
				rt.Fatalf("%+v: the token fell from %d to %d", op, highest[op.ID], want.Record.Token)
			}
			if after.State != driver.StateFree { // else an expired one stays, until the server drops it
				records[op.ID] = after
			}
			highest[op.ID] = max(highest[op.ID], after.Token)
		}
	})
}

func drawOp(t *rapid.T, id driver.ID, records map[driver.ID]driver.Record) driver.Op {
	op := driver.Op{
		ID:   id,
		Kind: rapid.SampledFrom([]driver.OpKind{driver.OpClaim, driver.OpClaim, driver.OpExtend, driver.OpComplete, driver.OpPark, driver.OpRelease, driver.OpRelease, driver.OpUnpark}).Draw(t, "kind"),
		TTL:  time.Duration(rapid.Int64Range(0, 3000).Draw(t, "ttl, ms")) * time.Millisecond,
	}
	print := rapid.SampledFrom([]driver.Fingerprint{{}, {1}, {1}, {0xff, 7: 0xff}})
	tags := rapid.SampledFrom([]driver.Tag{0, 0, 1, math.MaxUint32})
	notes := rapid.SampledFrom([][]byte{nil, nil, nil, nil, []byte("note"), []byte("\x00"), bytes.Repeat([]byte{0xff}, driver.MaxNote)})
	position := driver.Position{
		Source:    rapid.SampledFrom([]string{"", "o", "orders", "a name that is longer than the others\x00\xff"}).Draw(t, "source"),
		Partition: rapid.Int32().Draw(t, "partition"), Offset: rapid.Int64().Draw(t, "offset"),
	}
	switch op.Kind {
	case driver.OpClaim:
		op.Nonce = rapid.SampledFrom([]uint64{1, 2, math.MaxUint64}).Draw(t, "nonce")
		op.Lease = time.Duration(rapid.Int64Range(0, 3000).Draw(t, "lease, ms")) * time.Millisecond
		op.Fingerprint, op.Tag, op.Position = print.Draw(t, "fingerprint"), tags.Draw(t, "tag"), position
		op.Note = notes.Draw(t, "note")
		if rapid.IntRange(0, 4).Draw(t, "floor") == 0 {
			op.Floor = records[id].Token + driver.Token(rapid.Uint64Range(0, 5e6).Draw(t, "above"))
		}
		return op
	case driver.OpExtend:
		op.Lease = time.Duration(rapid.Int64Range(0, 3000).Draw(t, "lease, ms")) * time.Millisecond
		op.Note = notes.Draw(t, "note")
	case driver.OpComplete, driver.OpPark:
		op.Fingerprint, op.Tag, op.Position = print.Draw(t, "fingerprint"), tags.Draw(t, "tag"), position
		op.Ambiguous = rapid.Bool().Draw(t, "ambiguous")
		op.Result = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "result")
		op.Omitted = op.Kind == driver.OpComplete && rapid.Bool().Draw(t, "omitted")
	case driver.OpRelease:
		op.Ambiguous, op.Uncounted = rapid.Bool().Draw(t, "ambiguous"), rapid.Bool().Draw(t, "uncounted")
	case driver.OpUnpark:
		if rapid.IntRange(0, 4).Draw(t, "floor") == 0 {
			op.Floor = records[id].Token + driver.Token(rapid.Uint64Range(0, 5e6).Draw(t, "above"))
		}
		return op
	}
	op.Token = records[id].Token
	if op.Token == 0 || rapid.IntRange(0, 5).Draw(t, "another token") == 0 {
		op.Token = driver.Token(time.Now().UnixMicro()) + driver.Token(rapid.Uint64Range(0, 3).Draw(t, "token"))
	}
	return op
}

// living returns the record if it has not expired.
func living(r driver.Record, now time.Time) driver.Record {
	if r.Expires.After(now) {
		return r
	}
	return driver.Record{}
}

// normal brings replies that mean the same into one form.
func normal(r driver.Reply) driver.Reply {
	for _, t := range []*time.Time{&r.Record.LeaseEnd, &r.Record.Expires, &r.Record.FirstSeen} {
		if !t.IsZero() {
			*t = t.UTC()
		}
	}
	if len(r.Record.Result) == 0 {
		r.Record.Result = nil
	}
	return r
}
