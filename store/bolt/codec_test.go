package boltstore

import (
	"encoding/hex"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

var (
	base = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	at   = base.Add(17*time.Minute + 123456789)
)

// samples are entries and what they look like on disk. That must never change:
// what is to look different gets a new version.
var samples = []struct {
	name   string
	seq    uint64
	source uint64
	entry  entry
	hex    string
	old    string // of version 1; "" for what that cannot say
}{
	{
		"claimed", 7, 1,
		entry{driver.ID{1, 2, 3, 15: 4}, 0, at, driver.Record{
			State: driver.StateClaimed, Token: driver.Token(at.UnixMicro()), Nonce: 0x0102030405060708,
			LeaseEnd: at.Add(30 * time.Second), Expires: at.Add(30*time.Second + day), FirstSeen: at,
			First: driver.Position{Source: "orders", Partition: 3, Offset: 1_000_000}, Fingerprint: driver.Fingerprint{9, 8, 7}, Held: driver.Position{Source: "orders", Partition: 3, Offset: 1_000_000},
		}},
		"04041c010203000000000000000000000000040095cae2a0d81d00008080f89492a5270080b09dc2df0108070605040302010908070000000000010680897aaeba6394", "01041c010203000000000000000000000000040095cae2a0d81d000080b095d7f1a6270080b09dc2df0108070605040302010908070000000000010680897a9f6f4999",
	},
	{
		"released", 300, 0,
		entry{driver.ID{0xff}, 7, at, driver.Record{
			State: driver.StateReleased, Token: 5, Nonce: 1, Attempt: 300, Ambiguous: true,
			Expires: at.Add(day), FirstSeen: base.Add(-day),
			First: driver.Position{Source: "spelled out", Partition: -1, Offset: -1},
		}},
		"040515ff000000000000000000000000000000a50295cae2a0d81df5a4e7a7aefda506ac028080f89492a527aa94bdd6c2e0270100000000000000000b7370656c6c6564206f75740101f3dd5ecb", "010515ff000000000000000000000000000000a50295cae2a0d81df5a4e7a7aefda506ac028080f89492a527aa94bdd6c2e0270100000000000000000b7370656c6c6564206f75740101dba110c0",
	},
	{
		"done", 1 << 40, 1,
		entry{driver.ID{1, 2, 3, 15: 4}, 1<<40 - 1, at, driver.Record{
			State: driver.StateDone, Token: driver.Token(at.UnixMicro() - 1000), Expires: at.Add(day), FirstSeen: at.Add(-time.Millisecond),
			First: driver.Position{Source: "orders", Offset: math.MaxInt64}, Fingerprint: driver.Fingerprint{9, 8, 7}, Result: []byte("result"),
		}},
		"040638010203000000000000000000000000040195cae2a0d81dcf0f008080f89492a52780897a09080700000000000100feffffffffffffffff01726573756c74188ac9ec", "010638010203000000000000000000000000040195cae2a0d81dcf0f008080f89492a52780897a09080700000000000100feffffffffffffffff01726573756c7473978f86",
	},
	{
		"done, omitted", 9, 0,
		entry{driver.ID{}, 8, base, driver.Record{State: driver.StateDone, Token: math.MaxUint64, Expires: base.Add(math.MaxInt64), FirstSeen: base, Omitted: true}},
		"04060200000000000000000000000000000000010081c0f8daa6fda50600feffffffffffffffff0100ef8fdaf7", "01060200000000000000000000000000000000010081c0f8daa6fda50600feffffffffffffffff01003d104ca2",
	},
	{
		"parked, empty reason", 10, 0,
		entry{driver.ID{}, 0, base, driver.Record{State: driver.StateParked, Expires: base, FirstSeen: base, Result: []byte{}}},
		"040720000000000000000000000000000000000000ffbff8daa6fda5060000006b1b1067", "010720000000000000000000000000000000000000ffbff8daa6fda5060000008c882dac",
	},
	{"forgotten", 11, 0, entry{id: driver.ID{5}, prev: 2, written: at}, "0103050000000000000000000000000000000995cae2a0d81d6df0407e", ""},
	{
		"claimed, of another position, with a note and a tag", 7, 1,
		entry{driver.ID{1, 2, 3, 15: 4}, 0, at, driver.Record{
			State: driver.StateClaimed, Token: driver.Token(at.UnixMicro()), Nonce: 0x0102030405060708, Attempt: 2, Ambiguous: true,
			LeaseEnd: at.Add(30 * time.Second), Expires: at.Add(30*time.Second + day), FirstSeen: at,
			First: driver.Position{Source: "orders", Partition: 3, Offset: 1_000_000}, Fingerprint: driver.Fingerprint{9, 8, 7}, Tag: 0x01020304,
			Held: driver.Position{Source: "orders", Partition: 4, Offset: -5}, Note: []byte("note"),
		}},
		"04045d07010203000000000000000000000000040095cae2a0d81d00028080f89492a5270080b09dc2df0108070605040302010908070000000000010680897a04030201010809046e6f746563d4dae9", "",
	},
	{
		"claimed, of a position in another source", 7, 1,
		entry{driver.ID{1, 2, 3, 15: 4}, 0, at, driver.Record{
			State: driver.StateClaimed, Token: driver.Token(at.UnixMicro()), LeaseEnd: at.Add(math.MaxInt64), Expires: at.Add(math.MaxInt64).Add(math.MaxInt64), FirstSeen: at,
			First: driver.Position{Source: "orders", Partition: 3, Offset: 1_000_000}, Held: driver.Position{Source: "payments"},
		}},
		"04045002010203000000000000000000000000040095cae2a0d81d0000feffffffffffffffff0100feffffffffffffffff01010680897a00087061796d656e7473000085422e26", "",
	},
	{
		"claimed, of an unknown position", 7, 1,
		entry{driver.ID{1, 2, 3, 15: 4}, 0, at, driver.Record{
			State: driver.StateClaimed, Token: driver.Token(at.UnixMicro()), LeaseEnd: at, Expires: at.Add(day), FirstSeen: at,
			First: driver.Position{Source: "orders", Partition: 3, Offset: 1_000_000},
		}},
		"04045002010203000000000000000000000000040095cae2a0d81d00008080f89492a5270000010680897a00000000d5367924", "",
	},
	{
		"done, with a tag", 7, 1,
		entry{driver.ID{1, 2, 3, 15: 4}, 0, at, driver.Record{
			State: driver.StateDone, Token: driver.Token(at.UnixMicro()), Expires: at.Add(day), FirstSeen: at,
			First: driver.Position{Source: "orders", Offset: 1}, Fingerprint: driver.Fingerprint{9, 8, 7}, Tag: math.MaxUint32, Result: []byte("result"),
		}},
		"04067801010203000000000000000000000000040095cae2a0d81d00008080f89492a527000908070000000000010002ffffffff726573756c74c00b7a76", "",
	},
}

func TestEncoding(t *testing.T) {
	for _, tt := range samples {
		t.Run(tt.name, func(t *testing.T) {
			b := appendEntry([]byte("before"), base, tt.source, tt.seq, &tt.entry)[len("before"):]
			if got := hex.EncodeToString(b); got != tt.hex {
				t.Errorf("encoded:\n got %s\nwant %s", got, tt.hex)
			}
			k, body, err := unseal(b, tt.seq)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeEntry(k, body, base, []string{"orders"}, tt.seq)
			if err != nil {
				t.Fatal(err)
			}
			if got.id != tt.entry.id || got.prev != tt.entry.prev || !got.written.Equal(tt.entry.written) || !same(&got.record, &tt.entry.record) {
				t.Errorf("decoded:\n got %+v\nwant %+v", got, tt.entry)
			}
			if (got.record.Result == nil) != (tt.entry.record.Result == nil) {
				t.Errorf("result: got %#v, want %#v", got.record.Result, tt.entry.record.Result)
			}
			if _, _, err := unseal(b, tt.seq+1); !errors.Is(err, errChecksum) {
				t.Errorf("under another sequence number: got %v, want %v", err, errChecksum)
			}
			if tt.old != "" {
				old := tt.entry
				old.record.Held = driver.Position{} // it did not say
				b, err := hex.DecodeString(tt.old)
				if err != nil {
					t.Fatal(err)
				}
				k, body, err := unseal(b, tt.seq)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := decodeEntry(k, body, base, []string{"orders"}, tt.seq); err != nil || !same(&got.record, &old.record) {
					t.Errorf("decoded from version 1: got %+v, %v, want %+v", got, err, old)
				}
			}
			for bit := range len(b) * 8 {
				b[bit/8] ^= 1 << (bit % 8)
				if _, _, err := unseal(b, tt.seq); !errors.Is(err, errChecksum) {
					t.Errorf("bit %d flipped: got %v, want %v", bit, err, errChecksum)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
	t.Run("state", func(t *testing.T) {
		want := state{storeID{1, 15: 2}, 3, at, 77, horizon.Horizon{Since: base, TTL: 2 * day, Before: at, Short: day}, uptime{[16]byte{3, 15: 4}, time.Hour}}
		b := appendState(nil, 5, &want)
		if got := hex.EncodeToString(b); got != stateHex {
			t.Errorf("encoded:\n got %s\nwant %s", got, stateHex)
		}
		_, body, err := unseal(b, 5)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeState(body); err != nil || got != want {
			t.Errorf("decoded: got %+v, %v, want %+v", got, err, want)
		}
		want.up = uptime{}
		if b, err = hex.DecodeString(stateHexOne); err != nil {
			t.Fatal(err)
		}
		if _, body, err = unseal(b, 5); err != nil {
			t.Fatal(err)
		}
		if got, err := decodeState(body); err != nil || got != want {
			t.Errorf("decoded from version 1: got %+v, %v, want %+v", got, err, want)
		}
	})
	t.Run("source", func(t *testing.T) {
		b := appendSource(nil, 6, 1, "orders")
		if got := hex.EncodeToString(b); got != sourceHex {
			t.Errorf("encoded:\n got %s\nwant %s", got, sourceHex)
		}
		_, body, err := unseal(b, 6)
		if err != nil {
			t.Fatal(err)
		}
		if n, source, err := decodeSource(body); err != nil || n != 1 || source != "orders" {
			t.Errorf("decoded: got %d, %q, %v, want 1, orders", n, source, err)
		}
	})
}

const (
	stateHex    = "030101000000000000000000000000000002031525ef37c7b698184d000000000000000080d6b3d9b5981800009e22299d00001525ef37c7b6981800004f91944e00000300000000000000000000000000000400a0b830460300007987f5db"
	stateHexOne = "010101000000000000000000000000000002031525ef37c7b698184d000000000000000080d6b3d9b5981800009e22299d00001525ef37c7b6981800004f91944e0000b040b4f5" // of version 1
	sourceHex   = "0102016f72646572731beb083a"
)

// The index, the file and the page cache hold what this size lets them.
func TestRecordSize(t *testing.T) {
	now := base.Add(time.Hour)
	e := entry{id: key("k", 1), prev: 999_000, written: now, record: driver.Record{
		State: driver.StateDone, Token: driver.Token(now.Add(-10 * time.Minute).UnixMicro()),
		Expires: now.Add(day), FirstSeen: now.Add(-10 * time.Minute),
		First: driver.Position{Source: "orders", Partition: 63, Offset: 1 << 40}, Fingerprint: driver.Fingerprint{1},
	}}
	const key, element = 8, 16 // what bbolt adds to a value
	if got := len(appendEntry(nil, base, 1, 1_000_000, &e)) + key + element; got > 96 {
		t.Errorf("a record with an empty result takes %d bytes, want at most 96", got)
	}
}

func TestNewerVersionOfAnEntry(t *testing.T) {
	b := seal([]byte{newest + 1, byte(kindDone), 1, 2, 3}, 0, 9)
	if _, _, err := unseal(b, 9); !errors.Is(err, ErrFormat) {
		t.Errorf("got %v, want ErrFormat", err)
	}
}

// On a damaged page a pack can be where an entry should be. No newer program wrote it.
func TestPackInPlaceOfAnEntry(t *testing.T) {
	b := seal([]byte{packVersion, 1, 2, 3}, 0, 9)
	if _, _, err := unseal(b, 9); !errors.Is(err, errBody) {
		t.Errorf("got %v, want errBody", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples {
		b := appendEntry(nil, base, s.source, s.seq, &s.entry)
		f.Add(b[:len(b)-crcLen], s.seq)
		if old, err := hex.DecodeString(s.old); err == nil && len(old) > 0 {
			f.Add(old[:len(old)-crcLen], s.seq)
		}
	}
	f.Add(appendState(nil, 1, &state{}), uint64(1))
	f.Add(appendSource(nil, 1, 1, "orders"), uint64(1))
	sources := []string{"orders", "", "payments"}
	f.Fuzz(func(t *testing.T, b []byte, seq uint64) {
		b = seal(append([]byte{}, b...), 0, seq) // few inputs would get past the checksum
		k, body, err := unseal(b, seq)
		if err != nil {
			return
		}
		switch k {
		case kindState:
			_, _ = decodeState(body)
			return
		case kindSource:
			_, _, _ = decodeSource(body)
			return
		}
		e, err := decodeEntry(k, body, base, sources, seq)
		if err != nil {
			return
		}
		if e.prev >= seq && e.prev != 0 {
			t.Fatalf("entry %d replaces %d", seq, e.prev)
		}
		again := appendEntry(nil, base, 0, seq, &e)
		k, body, err = unseal(again, seq)
		if err != nil {
			t.Fatalf("%+v: encoded, and not decoded: %v", e, err)
		}
		if e.record.State == driver.StateClaimed && e.record.LeaseEnd.Add(e.record.Expires.Sub(e.record.LeaseEnd)) != e.record.Expires {
			return // of version 1, and further apart than anybody wrote it
		}
		got, err := decodeEntry(k, body, base, nil, seq)
		if err != nil || got.id != e.id || got.prev != e.prev || !got.written.Equal(e.written) || !same(&got.record, &e.record) {
			t.Fatalf("decoded again:\n got %+v, %v\nwant %+v", got, err, e)
		}
	})
}
