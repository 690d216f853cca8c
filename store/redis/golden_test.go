package redisstore_test

import (
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// goldenTime is in the future, where no clock of a server interferes.
var goldenTime = time.Date(2126, time.March, 1, 12, 0, 0, 0, time.UTC)

// goldenStore returns a store on a server of its own, at goldenTime.
func goldenStore(t *testing.T) (*redisstore.Store, *redistest.Server) {
	t.Helper()
	server := redistest.Run(t)
	s := open(t, server, nil)
	s.SetTime(goldenTime)
	return s, server
}

func goldenClaim(key dedup.Key) driver.Op {
	op := claim(key, 0x0102030405060708)
	op.Fingerprint = driver.Fingerprint{9, 8, 7}
	op.Position = driver.Position{Source: "eu", Partition: 3, Offset: 42} // too short to be interned
	return op
}

// TestGoldenRecords: records on a server are what they were when this version of
// the format was made. Bytes that differ need a new version.
func TestGoldenRecords(t *testing.T) {
	elsewhere := driver.Position{Source: "eu", Partition: 4, Offset: -5}
	for _, c := range []struct {
		name string
		ops  func(granted driver.Record, op driver.Op) []driver.Op
		hex  string
	}{
		{"claimed", nil, "0201118206b9a39000047b664ab2e0047b6612da000000047b6613c46001020304050607080000000009080700000000000365750654"},
		{"claimed, extended with a note", func(r driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{{Kind: driver.OpExtend, ID: op.ID, Token: r.Token, Lease: time.Minute, TTL: time.Hour, Note: []byte("note")}}
		}, "0201118206b9a39000047b664ab2e0047b6612da000000047b6613c4600102030405060708000000046e6f746509080700000000000365750654"},
		{"claimed, of another position, with a note and a tag", func(r driver.Record, op driver.Op) []driver.Op {
			op.Nonce, op.Position, op.Note, op.Tag = 9, elsewhere, []byte("note"), 0x01020304
			return []driver.Op{{Kind: driver.OpRelease, ID: op.ID, Token: r.Token, TTL: time.Hour, Ambiguous: true}, op}
		}, "0229118206b9a39001047b664ab2e0047b6612da000001047b6613c46000000000000000090005000403657508096e6f74650908070000000000010203040365750654"},
		{"released", func(r driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{{Kind: driver.OpRelease, ID: op.ID, Token: r.Token, TTL: time.Hour}}
		}, "0202118206b9a39000047b6649c880047b6612da000001010203040506070809080700000000000365750654"},
		{"done", func(r driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{{Kind: driver.OpComplete, ID: op.ID, Token: r.Token, TTL: time.Hour, Result: []byte("result")}}
		}, "0203118206b9a39000047b6649c880047b6612da00000009080700000000000365750654726573756c74"},
		{"done, omitted", func(r driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{{Kind: driver.OpComplete, ID: op.ID, Token: r.Token, TTL: time.Hour, Omitted: true}}
		}, "0213118206b9a39000047b6649c880047b6612da00000009080700000000000365750654"},
		{"done, with a tag", func(_ driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{{
				Kind: driver.OpComplete, ID: dedup.NewID("test", "late"), Token: 77, TTL: time.Hour, Result: []byte("result"),
				Fingerprint: op.Fingerprint, Tag: 0xffffffff, Position: elsewhere,
			}}
		}, "02230000000000004d047b6649c880047b6612da0000000908070000000000ffffffff0365750809726573756c74"},
		{"parked, ambiguous", func(r driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{{Kind: driver.OpPark, ID: op.ID, Token: r.Token, TTL: time.Hour, Ambiguous: true, Result: []byte("no such order")}}
		}, "020c118206b9a39000047b6649c880047b6612da000000090807000000000003657506546e6f2073756368206f72646572"},
		{"unparked", func(r driver.Record, op driver.Op) []driver.Op {
			return []driver.Op{
				{Kind: driver.OpPark, ID: op.ID, Token: r.Token, TTL: time.Hour, Ambiguous: true, Result: []byte("no such order")},
				{Kind: driver.OpUnpark, ID: op.ID, TTL: time.Hour},
			}
		}, "020a118206b9a39001047b6649c880047b6612da000000000000000000000009080700000000000365750654"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, server := goldenStore(t)
			op := goldenClaim("golden")
			last := apply(t, s, op)[0]
			id := op.ID
			if c.ops != nil {
				for _, op := range c.ops(last.Record, op) {
					last, id = apply(t, s, op)[0], op.ID
				}
			}
			value, err := server.Get("oq:" + string(id[:]))
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString([]byte(value)); got != c.hex {
				t.Errorf("stored:\n got %s\nwant %s", got, c.hex)
			}
			if got, err := s.Lookup(t.Context(), id); err != nil || !reflect.DeepEqual(normal(driver.Reply{Record: got}), normal(driver.Reply{Record: last.Record})) {
				t.Errorf("Lookup: got %+v, %v, want what the last operation answered, %+v", got, err, last.Record)
			}
		})
	}
}

// oldRecord writes r as version 1 of the format had it.
func oldRecord(r driver.Record) string {
	b := []byte{1, byte(r.State)}
	if r.Ambiguous {
		b[1] |= 8
	}
	if r.Omitted {
		b[1] |= 16
	}
	number := func(n uint64, size int) {
		b = append(b, binary.BigEndian.AppendUint64(nil, n)[8-size:]...)
	}
	number(uint64(r.Token), 7)
	number(uint64(r.Expires.UnixMilli()), 6)
	number(uint64(r.FirstSeen.UnixMilli()), 6)
	number(uint64(r.Attempt), 2)
	if r.State == driver.StateClaimed {
		number(uint64(r.LeaseEnd.UnixMilli()), 6)
	}
	if r.State == driver.StateClaimed || r.State == driver.StateReleased {
		number(r.Nonce, 8)
	}
	b = append(b, r.Fingerprint[:]...)
	b = append(append(b, byte(len(r.First.Source)+1)), r.First.Source...)
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.First.Partition)), r.First.Offset)
	return string(append(b, r.Result...))
}

// TestRecordsOfTheVersionBefore: every operation does to a record of version 1
// what Step says.
func TestRecordsOfTheVersionBefore(t *testing.T) {
	s, server := goldenStore(t)
	token := driver.Token(goldenTime.UnixMicro())
	base := driver.Record{
		Token: token, FirstSeen: goldenTime.Add(-time.Minute), Expires: goldenTime.Add(time.Hour), Attempt: 300, Ambiguous: true,
		Fingerprint: driver.Fingerprint{9, 8, 7}, First: driver.Position{Source: "eu", Partition: 3, Offset: 42},
	}
	var records []driver.Record
	for _, state := range []driver.State{driver.StateClaimed, driver.StateReleased, driver.StateDone, driver.StateParked} {
		r := base
		r.State = state
		switch state {
		case driver.StateClaimed:
			r.Nonce, r.LeaseEnd = 7, goldenTime.Add(-time.Second)
			records = append(records, r)
			r.LeaseEnd = goldenTime.Add(time.Second)
		case driver.StateReleased:
			r.Nonce = 7
		default:
			r.Result, r.Omitted = []byte("result"), true
		}
		records = append(records, r)
	}
	claims := goldenClaim("old")
	claims.Note = []byte("note")
	tagged := goldenClaim("old")
	tagged.Tag, tagged.Fingerprint, tagged.Position.Offset = 7, driver.Fingerprint{5}, 43
	other := goldenClaim("old")
	other.Fingerprint = driver.Fingerprint{5}
	extend := driver.Op{Kind: driver.OpExtend, ID: claims.ID, Token: token, Lease: time.Minute, TTL: time.Hour}
	noted := extend
	noted.Note = []byte("note")
	for _, op := range []driver.Op{
		claims, tagged, other, extend, noted,
		{Kind: driver.OpComplete, ID: claims.ID, Token: token, TTL: time.Hour, Result: []byte("new")},
		{Kind: driver.OpPark, ID: claims.ID, Token: token, TTL: time.Hour, Result: []byte("new")},
		{Kind: driver.OpRelease, ID: claims.ID, Token: token, TTL: time.Hour},
		{Kind: driver.OpUnpark, ID: claims.ID, TTL: time.Hour},
	} {
		for _, r := range records {
			if err := server.Miniredis.Set("oq:"+string(op.ID[:]), oldRecord(r)); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Lookup(t.Context(), op.ID); err != nil || !reflect.DeepEqual(normal(driver.Reply{Record: got}), normal(driver.Reply{Record: r})) {
				t.Fatalf("Lookup of a record that is %v: got %+v, %v, want %+v", r.State, got, err, r)
			}
			reply := apply(t, s, op)[0]
			after, want := driver.Step(r, op, goldenTime, max(token+1, reply.Record.Token))
			if got := normal(reply); !reflect.DeepEqual(got, normal(want)) {
				t.Errorf("%v of a record that is %v:\ngot  %+v\nwant %+v", op.Kind, r.State, got, normal(want))
			}
			if got, err := s.Lookup(t.Context(), op.ID); err != nil || !reflect.DeepEqual(normal(driver.Reply{Record: got}), normal(driver.Reply{Record: after})) {
				t.Errorf("Lookup after %v of a record that is %v: got %+v, %v, want %+v", op.Kind, r.State, got, err, after)
			}
		}
	}
}

// TestNewerRecord: a record of a version that this program does not know is refused
// by every operation, and left alone.
func TestNewerRecord(t *testing.T) {
	s, server := goldenStore(t)
	op := goldenClaim("newer")
	newer := "\x03" + strings.Repeat("\xff", 60)
	if err := server.Miniredis.Set("oq:"+string(op.ID[:]), newer); err != nil {
		t.Fatal(err)
	}
	for kind := driver.OpClaim; kind <= driver.OpUnpark; kind++ {
		op := driver.Op{Kind: kind, ID: op.ID, Token: 1, Lease: time.Minute, TTL: time.Hour}
		replies, err := s.Apply(t.Context(), []driver.Op{op})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, kind.String(), replies[0].Err, "version 3", "knows 2", "upgrade")
	}
	_, err := s.Lookup(t.Context(), op.ID)
	wants(t, "Lookup", err, "version 3", "upgrade")
	wants(t, "Forget", s.Forget(t.Context(), []driver.ID{op.ID}), "version 3", "upgrade")
	if value, err := server.Get("oq:" + string(op.ID[:])); err != nil || value != newer {
		t.Errorf("got %x, %v, want it as it was", value, err)
	}
}
