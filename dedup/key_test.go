package dedup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// FuzzNewID: two messages have one ID only if scope and key are equal.
func FuzzNewID(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Add("", "abc", "abc", "")
	f.Add("a", "b", "a", "b")
	f.Add("\x01a", "b", "", "\x01ab")
	f.Add("s", strings.Repeat("k", 127), "s", strings.Repeat("k", 128))
	f.Fuzz(func(t *testing.T, scopeA, keyA, scopeB, keyB string) {
		a, b := dedup.NewID(scopeA, dedup.Key(keyA)), dedup.NewID(scopeB, dedup.Key(keyB))
		if same := scopeA == scopeB && keyA == keyB; (a == b) != same {
			t.Errorf("(%q, %q) and (%q, %q): got IDs %v and %v", scopeA, keyA, scopeB, keyB, a, b)
		}
		if back, err := driver.ParseID(a.String()); err != nil || back != a {
			t.Errorf("ParseID(%v): got %v, %v", a, back, err)
		}
	})
}

// TestNewIDMovesNothing moves bytes between scope and key, where prefixes that
// are not of a fixed length could be mistaken for each other.
func TestNewIDMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(1, 400, 600).Draw(t, "text")
		i := rapid.IntRange(0, len(text)).Draw(t, "i")
		j := rapid.IntRange(0, len(text)).Draw(t, "j")
		a, b := dedup.NewID(text[:i], dedup.Key(text[i:])), dedup.NewID(text[:j], dedup.Key(text[j:]))
		if (a == b) != (i == j) {
			t.Errorf("%q cut at %d and at %d: got IDs %v and %v", text, i, j, a, b)
		}
	})
}

// TestNewIDIsStable: stores hold IDs, so another release must not compute others.
func TestNewIDIsStable(t *testing.T) {
	for _, c := range []struct {
		scope string
		key   dedup.Key
		want  string
	}{
		{"", "", "96a296d224f285c67bee93c30f8a3091"},
		{"orders", "order-1", "86c0a458bab00dc83c18185732c1c62e"},
		{"orders", dedup.Key(strings.Repeat("k", dedup.MaxKey)), "6c4173a42eaffa6af866218436e2c10c"},
	} {
		if got := dedup.NewID(c.scope, c.key).String(); got != c.want {
			t.Errorf("NewID(%q, %d bytes): got %s, want %s", c.scope, len(c.key), got, c.want)
		}
	}
}

func TestParseID(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "0 characters"},
		{"00", "2 characters"},
		{strings.Repeat("0", 33), "33 characters"},
		{strings.Repeat("g", 32), "invalid byte"},
	} {
		if _, err := driver.ParseID(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseID(%q): got error %v, want one with %q", c.text, err, c.want)
		}
	}
	upper := "0123456789ABCDEF0123456789ABCDEF"
	if id, err := driver.ParseID(upper); err != nil || id.String() != strings.ToLower(upper) {
		t.Errorf("ParseID(%q): got %v, %v", upper, id, err)
	}
}

// keyCase is a message and the key that a function derives from it: the key, or
// no key for an error that matches ErrNoKey, or another error with the text.
type keyCase struct {
	name string
	fn   dedup.KeyFunc
	m    dedup.Message
	want dedup.Key
	err  string
}

func runKeyCases(t *testing.T, cases []keyCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.fn(&c.m)
			switch {
			case c.err != "":
				if err == nil || errors.Is(err, dedup.ErrNoKey) || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %q and error %v, want an error with %q that is not ErrNoKey", got, err, c.err)
				}
			case c.want == "":
				if !errors.Is(err, dedup.ErrNoKey) {
					t.Errorf("got %q and error %v, want one that matches ErrNoKey", got, err)
				}
			default:
				if err != nil || got != c.want {
					t.Errorf("got %q, %v, want %q", got, err, c.want)
				}
			}
			if err != nil && got != "" {
				t.Errorf("got key %q beside error %v", got, err)
			}
		})
	}
}

func TestHeaderKey(t *testing.T) {
	with := func(pairs ...string) dedup.Message { return dedup.Message{Headers: headers(pairs...)} }
	two := dedup.HeaderKey("Order-Id", "X-Id")
	runKeyCases(t, []keyCase{
		{name: "default name", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "1"), want: "1"},
		{name: "name in another case", fn: dedup.HeaderKey(), m: with("idempotency-key", "1"), want: "1"},
		{name: "missing", fn: dedup.HeaderKey(), m: with("Other", "1")},
		{name: "no headers", fn: dedup.HeaderKey(), m: with()},
		{name: "empty", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "")},
		{name: "empty and not", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "", "Idempotency-Key", "1"), want: "1"},
		{name: "twice the same", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "1", "Idempotency-Key", "1"), want: "1"},
		{name: "two values", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "1", "Idempotency-Key", "2"), err: "two different values"},
		{name: "two values, two cases", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "1", "IDEMPOTENCY-KEY", "2"), err: "two different values"},
		{name: "first of two names", fn: two, m: with("X-Id", "2", "Order-Id", "1"), want: "1"},
		{name: "second of two names", fn: two, m: with("X-Id", "2", "Order-Id", ""), want: "2"},
		{name: "two values of the second name", fn: two, m: with("Order-Id", "1", "X-Id", "2", "X-Id", "3"), want: "1"},
		{name: "two values of the first name", fn: two, m: with("Order-Id", "1", "Order-Id", "2", "X-Id", "3"), err: `"Order-Id"`},
		{name: "any bytes", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "\xff\x00 "), want: "\xff\x00 "},
		{name: "a zero byte first", fn: dedup.HeaderKey(), m: with("Idempotency-Key", "\x00\x01x"), err: "zero byte"},
		{name: "a zero byte alone", fn: two, m: with("Order-Id", "\x00", "X-Id", "1"), err: "zero byte"},
		{name: "a string of RFC 9651", fn: dedup.HeaderKey(), m: with("Idempotency-Key", `"k"`), want: "k"},
		{name: "a string and its bytes are one value", fn: dedup.HeaderKey(), m: with("Idempotency-Key", `"k"; a=1`, "idempotency-key", "k"), want: "k"},
		{name: "two strings", fn: dedup.HeaderKey(), m: with("Idempotency-Key", `"k"`, "idempotency-key", `"l"`), err: "two different values"},
		{name: "an empty string", fn: two, m: with("Order-Id", `""`, "X-Id", "1"), want: "1"},
		{name: "an empty string alone", fn: dedup.HeaderKey(), m: with("Idempotency-Key", `"";a`)},
	})
}

func TestPayloadHash(t *testing.T) {
	hash := func(topic, key, value string) dedup.Key {
		m := dedup.Message{Topic: topic, Value: []byte(value), Position: dedup.Position{Offset: offset.Add(1)}}
		if key != "" {
			m.Key = []byte(key)
		}
		k, err := dedup.PayloadHash()(&m)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if first, second := hash("a", "k", "bc"), hash("a", "k", "bc"); first != second {
		t.Errorf("two messages with equal topic, record key and payload: got two keys, want one")
	}
	for _, c := range [][6]string{
		{"a", "", "bc", "ab", "", "c"}, {"a", "", "x", "b", "", "x"}, {"a", "", "", "", "", "a"}, {"a", "", "x", "a", "", "y"},
		{"a", "k", "x", "a", "l", "x"}, {"a", "k", "", "a", "l", ""}, {"a", "k", "x", "a", "", "kx"}, {"a", "kl", "x", "ak", "l", "x"},
	} {
		if hash(c[0], c[1], c[2]) == hash(c[3], c[4], c[5]) {
			t.Errorf("(%q, %q, %q) and (%q, %q, %q): got one key, want two", c[0], c[1], c[2], c[3], c[4], c[5])
		}
	}
	none, _ := dedup.PayloadHash()(&dedup.Message{Topic: "a"})
	empty, _ := dedup.PayloadHash()(&dedup.Message{Topic: "a", Key: []byte{}, Value: []byte{}})
	if none != empty {
		t.Errorf("missing, and empty: got two keys, want one: clients disagree on which is which")
	}
}

// TestPayloadHashOfACompactedTopic: updates and deletes of different records are
// different messages.
func TestPayloadHashOfACompactedTopic(t *testing.T) {
	d, err := dedup.New(newStore(), "users", dedup.PayloadHash(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Shutdown(context.Background()) }()
	var h handler
	for i, m := range []dedup.Message{
		{Key: []byte("user-1"), Value: []byte("X")}, {Key: []byte("user-2"), Value: []byte("X")},
		{Key: []byte("user-1")}, {Key: []byte("user-2")},
	} {
		m.Topic, m.Position = "users", dedup.Position{Source: "users", Offset: int64(i) + 1}
		want(t, d.Do(t.Context(), &m, h.handle), dedup.Processed, true)
	}
}

func TestRecordKey(t *testing.T) {
	runKeyCases(t, []keyCase{
		{name: "key", fn: dedup.RecordKey(), m: dedup.Message{Key: []byte("user-1")}, want: "\x00\x03user-1"},
		{name: "any bytes", fn: dedup.RecordKey(), m: dedup.Message{Key: []byte("\x00\xff")}, want: "\x00\x03\x00\xff"},
		{name: "none", fn: dedup.RecordKey()},
		{name: "empty", fn: dedup.RecordKey(), m: dedup.Message{Key: []byte{}}},
	})
}

func TestAllOf(t *testing.T) {
	both := dedup.AllOf(dedup.HeaderKey("Tenant"), dedup.JSONKey("id"))
	with := func(tenant, value string) dedup.Message {
		return dedup.Message{Headers: headers("Tenant", tenant), Value: []byte(value)}
	}
	runKeyCases(t, []keyCase{
		{name: "both", fn: both, m: with("t", `{"id":7}`), want: "\x00\x06\x01t\x05\x00\x02[7]"},
		{name: "no header", fn: both, m: with("", `{"id":7}`)},
		{name: "no field", fn: both, m: with("t", `{}`)},
		{name: "no JSON", fn: both, m: with("t", ``)},
		{name: "one", fn: dedup.AllOf(dedup.HeaderKey("Tenant")), m: with("t", ``), want: "\x00\x06\x01t"},
		{name: "no functions", fn: dedup.AllOf(), err: "at least one function"},
		{name: "an empty key", fn: dedup.AllOf(func(*dedup.Message) (dedup.Key, error) { return "", nil })},
		{name: "a contradiction", fn: both, m: dedup.Message{Headers: headers("Tenant", "a", "Tenant", "b")}, err: "two different values"},
		{name: "a panic", fn: dedup.AllOf(panics), err: "panic"},
	})
	a, b := with("ab", `{"id":1}`), with("a", `{"id":1}`)
	b.Headers = headers("Tenant", "a\x05")
	first, _ := both(&a)
	second, _ := both(&b)
	if first == second {
		t.Errorf("got one key %q for two tenants, want two", first)
	}
}

// TestFirstOfMovesOn: a tombstone has neither header nor JSON, and is found by its
// position.
func TestFirstOfMovesOn(t *testing.T) {
	fn := dedup.FirstOf(dedup.HeaderKey(), dedup.JSONKey("id"), dedup.PositionKey())
	for _, value := range []string{"", "not JSON", `{"id":null}`, `{"id":1e99999999999999999999}`} {
		m := dedup.Message{Value: []byte(value), Position: dedup.Position{Source: "orders", Offset: 1}}
		if key, err := fn(&m); err != nil || !strings.HasPrefix(key.String(), "position:orders/0@1") {
			t.Errorf("payload %q: got %v, %v, want the key of its position", value, key, err)
		}
	}
	m := dedup.Message{Headers: headers("Idempotency-Key", "1", "Idempotency-Key", "2"), Position: dedup.Position{Source: "orders", Offset: 1}}
	if key, err := fn(&m); err == nil {
		t.Errorf("one header with two values: got %v, want an error", key)
	}
}

func TestJSONKey(t *testing.T) {
	of := func(value string) dedup.Message { return dedup.Message{Value: []byte(value)} }
	key := func(array string) dedup.Key { return dedup.Key("\x00\x02" + array) }
	id, nested := dedup.JSONKey("id"), dedup.JSONKey("order.id")
	runKeyCases(t, []keyCase{
		{name: "string", fn: id, m: of(`{"id":"a"}`), want: key(`["a"]`)},
		{name: "number", fn: id, m: of(`{"id":1}`), want: key(`[1]`)},
		{name: "a number as a string", fn: id, m: of(`{"id":"1"}`), want: key(`["1"]`)},
		{name: "number with a fraction", fn: id, m: of(`{"id":1.0}`), want: key(`[1]`)},
		{name: "number beyond float64", fn: id, m: of(`{"id":12345678901234567890123}`), want: key(`[12345678901234567890123]`)},
		{name: "false", fn: id, m: of(`{"id":false}`), want: key(`[false]`)},
		{name: "white space around", fn: id, m: of(" { \"id\" :\n 1 } "), want: key(`[1]`)},
		{name: "an escaped name", fn: id, m: of(`{"\u0069d":1}`), want: key(`[1]`)},
		{name: "an escaped value", fn: id, m: of(`{"id":"caf\u00e9"}`), want: key(`["café"]`)},
		{name: "a value that is not escaped", fn: id, m: of(`{"id":"café"}`), want: key(`["café"]`)},
		{name: "an object", fn: id, m: of(`{"id":{"b":[1.50, null ], "a":"\/"}}`), want: key(`[{"a":"/","b":[1.5,null]}]`)},
		{name: "twice: the last", fn: id, m: of(`{"id":1,"id":2}`), want: key(`[2]`)},
		{name: "twice in an object: the last", fn: id, m: of(`{"id":{"a":1,"b":0,"a":2}}`), want: key(`[{"a":2,"b":0}]`)},
		{name: "twice: the last is null", fn: id, m: of(`{"id":1,"id":null}`)},
		{name: "null", fn: id, m: of(`{"id":null}`)},
		{name: "empty string", fn: id, m: of(`{"id":""}`)},
		{name: "null as a string", fn: id, m: of(`{"id":"null"}`), want: key(`["null"]`)},
		{name: "missing", fn: id, m: of(`{"ID":1}`)},
		{name: "nested", fn: nested, m: of(`{"order":{"id":7}}`), want: key(`[7]`)},
		{name: "nested missing", fn: nested, m: of(`{"order":{}}`)},
		{name: "parent missing", fn: nested, m: of(`{}`)},
		{name: "parent null", fn: nested, m: of(`{"order":null}`)},
		{name: "parent an array", fn: nested, m: of(`{"order":[{"id":7}]}`)},
		{name: "parent a string", fn: nested, m: of(`{"order":"{\"id\":7}"}`)},
		{name: "a field with a dot in its name", fn: nested, m: of(`{"order.id":7}`)},
		{name: "payload an array", fn: id, m: of(`[{"id":1}]`)},
		{name: "payload null", fn: id, m: of(`null`)},
		{name: "payload empty", fn: id, m: of(``)},
		{name: "payload cut off", fn: id, m: of(`{"id":1`)},
		{name: "payload with more after it", fn: id, m: of(`{"id":1} {}`)},
		{name: "an exponent beyond all bounds", fn: id, m: of(`{"id":1e9999999999999999999}`)},
		{name: "zero, with such an exponent", fn: id, m: of(`{"id":-0.00e-9999999999999999999}`), want: key(`[0]`)},
		{name: "no path", fn: dedup.JSONKey(), m: of(`{"id":1}`), err: "at least one path"},
		{name: "two fields", fn: dedup.JSONKey("a", "b"), m: of(`{"b":"y","a":"x"}`), want: key(`["x","y"]`)},
		{name: "two fields, one missing", fn: dedup.JSONKey("a", "b"), m: of(`{"a":"x"}`)},
	})
	a, _ := dedup.JSONKey("a", "b")(&dedup.Message{Value: []byte(`{"a":12,"b":3}`)})
	b, _ := dedup.JSONKey("a", "b")(&dedup.Message{Value: []byte(`{"a":1,"b":23}`)})
	if a == b {
		t.Errorf("(12, 3) and (1, 23): got one key %q, want two", a)
	}
}

func TestPositionKey(t *testing.T) {
	base := dedup.Message{Position: dedup.Position{Source: "orders", Partition: 1, Offset: 2}, Published: time.Unix(3, 4)}
	key := func(change func(m *dedup.Message)) dedup.Key {
		m := base
		if change != nil {
			change(&m)
		}
		key, err := dedup.PositionKey()(&m)
		if err != nil || key == "" {
			t.Fatalf("PositionKey of %v: got %q, %v", m.Position, key, err)
		}
		return key
	}
	same := key(func(m *dedup.Message) { m.Delivery, m.Value, m.Published = 7, []byte("x"), m.Published.UTC() })
	if same != key(nil) {
		t.Errorf("a redelivery: got another key %q, want %q", same, key(nil))
	}
	for name, change := range map[string]func(m *dedup.Message){
		"source":       func(m *dedup.Message) { m.Position.Source = "order" },
		"partition":    func(m *dedup.Message) { m.Position.Partition = 0 },
		"offset":       func(m *dedup.Message) { m.Position.Offset = 0 },
		"timestamp":    func(m *dedup.Message) { m.Published = m.Published.Add(time.Millisecond) },
		"no timestamp": func(m *dedup.Message) { m.Published = time.Time{} },
		"shifted":      func(m *dedup.Message) { m.Position = dedup.Position{Source: "orders", Partition: 12, Offset: 0} },
	} {
		if key(change) == key(nil) {
			t.Errorf("another %s: got the same key, want another", name)
		}
	}
}

func TestPerTopic(t *testing.T) {
	fn := dedup.PerTopic(dedup.HeaderKey())
	key := func(topic, id string) dedup.Key {
		key, err := fn(&dedup.Message{Topic: topic, Headers: headers("Idempotency-Key", id)})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	if first, second := key("a", "1"), key("a", "1"); first != second {
		t.Errorf("one topic, one key: got two, want one")
	}
	for _, c := range [][4]string{{"a", "1", "b", "1"}, {"a", "bc", "ab", "c"}, {"", "abc", "a", "bc"}} {
		if key(c[0], c[1]) == key(c[2], c[3]) {
			t.Errorf("(%q, %q) and (%q, %q): got one key, want two", c[0], c[1], c[2], c[3])
		}
	}
	runKeyCases(t, []keyCase{
		{name: "none", fn: fn},
		{name: "empty", fn: dedup.PerTopic(func(*dedup.Message) (dedup.Key, error) { return "", nil })},
		{name: "no JSON", fn: dedup.PerTopic(dedup.JSONKey("id"))},
		{name: "error", fn: dedup.PerTopic(dedup.JSONKey()), err: "at least one path"},
		{name: "panic", fn: dedup.PerTopic(panics), err: "panic"},
	})
}

func TestFirstOf(t *testing.T) {
	gives := func(key dedup.Key, err error) dedup.KeyFunc {
		return func(*dedup.Message) (dedup.Key, error) { return key, err }
	}
	none := gives("", fmt.Errorf("%w: no such header", dedup.ErrNoKey))
	runKeyCases(t, []keyCase{
		{name: "first", fn: dedup.FirstOf(gives("1", nil), gives("2", nil)), want: "1"},
		{name: "after ErrNoKey", fn: dedup.FirstOf(none, gives("2", nil)), want: "2"},
		{name: "after an empty key", fn: dedup.FirstOf(gives("", nil), gives("2", nil)), want: "2"},
		{name: "not after another error", fn: dedup.FirstOf(gives("", errors.New("two values")), gives("2", nil)), err: "two values"},
		{name: "not after a panic", fn: dedup.FirstOf(panics, gives("2", nil)), err: "panic"},
		{name: "error of the last", fn: dedup.FirstOf(none, gives("", errors.New("two values"))), err: "two values"},
		{name: "none", fn: dedup.FirstOf(none, none)},
		{name: "no functions", fn: dedup.FirstOf()},
		{name: "nested", fn: dedup.FirstOf(dedup.FirstOf(none, none), gives("3", nil)), want: "3"},
		{name: "a message", fn: dedup.FirstOf(dedup.HeaderKey(), dedup.JSONKey("id"), dedup.PayloadHash()),
			m: dedup.Message{Value: []byte(`{"id":7}`)}, want: "\x00\x02[7]"},
	})
}

func panics(*dedup.Message) (dedup.Key, error) { panic("odd message") }

// TestKeyErrors: a message without a usable key has an error that names its
// position in one line. Neither that nor the log has any of its content.
func TestKeyErrors(t *testing.T) {
	const canary = "canary"
	long := canary + strings.Repeat("k", dedup.MaxKey)
	for _, c := range []struct {
		name  string
		fn    dedup.KeyFunc
		m     dedup.Message
		want  string
		noKey bool
	}{
		{"missing", dedup.HeaderKey("Order-Id"), dedup.Message{Headers: headers("Other", canary)}, "Order-Id", true},
		{"empty", func(*dedup.Message) (dedup.Key, error) { return "", nil }, dedup.Message{}, "empty", true},
		{"too long", dedup.HeaderKey(), dedup.Message{Headers: headers("Idempotency-Key", long)}, "more than 1024", false},
		{"too long with its topic", dedup.PerTopic(dedup.HeaderKey()), dedup.Message{Topic: "t", Headers: headers("Idempotency-Key", long[:dedup.MaxKey])}, "more than 1024", false},
		{"two values", dedup.HeaderKey(), dedup.Message{Headers: headers("Idempotency-Key", canary+"1", "Idempotency-Key", canary+"2")}, "two different values", false},
		{"not JSON", dedup.JSONKey("id"), dedup.Message{Value: []byte(canary)}, "not JSON", true},
		{"a zero byte", dedup.HeaderKey(), dedup.Message{Headers: headers("Idempotency-Key", "\x00"+canary)}, "zero byte", false},
		{"no field", dedup.JSONKey("id"), dedup.Message{Value: []byte(`{"` + canary + `":"` + canary + `"}`)}, `"id"`, true},
		{"none of several", dedup.FirstOf(dedup.HeaderKey(), dedup.JSONKey("id")), dedup.Message{Value: []byte(`{"x":"` + canary + `"}`)}, "none of 2", true},
		{"panic", panics, dedup.Message{Value: []byte(canary)}, "panic", false},
		{"runtime panic", func(m *dedup.Message) (dedup.Key, error) { return dedup.Key(m.Value[100:]), nil }, dedup.Message{Value: []byte(canary)}, "panic", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			d, err := dedup.New(memstore.New(nil), "orders", c.fn, &dedup.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			m := c.m
			m.Position = dedup.Position{Source: "source", Partition: 7, Offset: 4711}
			r := d.Do(t.Context(), &m, func(context.Context, *dedup.Message) ([]byte, error) {
				t.Error("the handler ran")
				return nil, nil
			})
			if err := d.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if r.Outcome != dedup.Unkeyed || r.Settled() || !r.Halt {
				t.Errorf("got %v, settled %t, halt %t, want unkeyed and halt", r.Outcome, r.Settled(), r.Halt)
			}
			if r.Err == nil {
				t.Fatal("got no error")
			}
			text := r.Err.Error()
			for _, want := range []string{"source/7@4711", c.want} {
				if !strings.Contains(text, want) {
					t.Errorf("got error %q, want one with %q", text, want)
				}
			}
			if errors.Is(r.Err, dedup.ErrNoKey) != c.noKey {
				t.Errorf("matches ErrNoKey: got %t, want %t, of %q", !c.noKey, c.noKey, text)
			}
			if strings.Contains(text, "\n") {
				t.Errorf("got error %q, want one line", text)
			}
			if strings.Contains(text+log.String(), canary) {
				t.Errorf("the message's content shows in the error %q or the log %q", text, log.String())
			}
		})
	}
}

func TestMaxKey(t *testing.T) {
	d, err := dedup.New(memstore.New(nil), "orders", dedup.HeaderKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]dedup.Outcome{dedup.MaxKey: dedup.Processed, dedup.MaxKey + 1: dedup.Unkeyed} {
		m := dedup.Message{Headers: headers("Idempotency-Key", strings.Repeat("k", n))}
		r := d.Do(t.Context(), &m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
		if r.Outcome != want {
			t.Errorf("a key of %d bytes: got %v, %v, want %v", n, r.Outcome, r.Err, want)
		}
	}
	if err := d.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFingerprints(t *testing.T) {
	a, b := &dedup.Message{Topic: "x", Value: []byte("a")}, &dedup.Message{Topic: "y", Value: []byte("a")}
	if dedup.PayloadFingerprint(a) != dedup.PayloadFingerprint(b) {
		t.Errorf("equal payloads: got two fingerprints, want one")
	}
	b.Value = []byte("b")
	if dedup.PayloadFingerprint(a) == dedup.PayloadFingerprint(b) {
		t.Errorf("two payloads: got one fingerprint, want two")
	}
	if got := dedup.PayloadFingerprint(&dedup.Message{}); got == (dedup.Fingerprint{}) {
		t.Errorf("an empty payload: got the zero fingerprint, which is not compared")
	}
	if got := dedup.NoFingerprint(a); got != (dedup.Fingerprint{}) {
		t.Errorf("NoFingerprint: got %x, want zero", got)
	}
}

// A deep value is refused before each of its levels copies it once more.
func TestDeepJSON(t *testing.T) {
	const depth = 5000
	value := `{"id":` + strings.Repeat(`{"a":`, depth) + `"` + strings.Repeat("x", 100_000) + `"` + strings.Repeat("}", depth) + "}"
	_, err := dedup.JSONKey("id")(&dedup.Message{Value: []byte(value)})
	if err == nil || !strings.Contains(err.Error(), "more than 65536 bytes") {
		t.Errorf("got %v, want an error that names the bound", err)
	}
}
