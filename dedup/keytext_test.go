package dedup_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
)

// keyVectors are keys as they are derived, printed and stored. Stores hold their
// IDs, so none of this ever changes.
var keyVectors = []struct {
	name string
	fn   dedup.KeyFunc // nil: no function derives it yet
	m    dedup.Message
	text string
	hex  string
	id   string // in the scope "orders"
}{
	{
		"header", dedup.HeaderKey(), dedup.Message{Headers: headers("Idempotency-Key", "order-1")},
		"order-1", "6f726465722d31", "86c0a458bab00dc83c18185732c1c62e",
	},
	{
		"header, a string of RFC 9651", dedup.HeaderKey(), dedup.Message{Headers: headers("Idempotency-Key", `"order-1";v=1`)},
		"order-1", "6f726465722d31", "86c0a458bab00dc83c18185732c1c62e",
	},
	{
		"payload", dedup.PayloadHash(), dedup.Message{Topic: "orders", Key: []byte("user-1"), Value: []byte("payload")},
		"payload:647089060acdddbe4f381076b2027461111a843657b7aee97f3da6ae18474d4b", "0001647089060acdddbe4f381076b2027461111a843657b7aee97f3da6ae18474d4b", "a1575280e75494231983a14e43728baa",
	},
	{
		"payload, nothing", dedup.PayloadHash(), dedup.Message{},
		"payload:96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7", "000196a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7", "bc39f66988085c3780366e4d844d19b9",
	},
	{
		"JSON", dedup.JSONKey("id", "n", "o"), dedup.Message{Value: []byte(`{"id":"caf\u00e9 \ud83d\ude00","n":1.50e1,"o":{"b":true,"a":[null,-0]}}`)},
		`json:["café 😀",15,{"a":[null,0],"b":true}]`, "00025b22636166c3a920f09f9880222c31352c7b2261223a5b6e756c6c2c305d2c2262223a747275657d5d", "4b9b30984be6d9c6e65a9a5064249c4e",
	},
	{
		"record key", dedup.RecordKey(), dedup.Message{Key: []byte("user 1")},
		`record:"user 1"`, "0003757365722031", "cdee70c8c456a7947542581a28a94ef4",
	},
	{
		"position", dedup.PositionKey(), dedup.Message{Position: dedup.Position{Source: "orders", Partition: 3, Offset: 1 << 40}, Published: time.Unix(1_767_225_600, 5)},
		"position:orders/3@1099511627776,1767225600000000005", "0004066f7264657273068080808080408a80d0dfbd94b98631", "592088b7e193aa9d693a5b906a10e0f1",
	},
	{
		"position without a timestamp", dedup.PositionKey(), dedup.Message{Position: dedup.Position{Partition: -1, Offset: -1}},
		`position:""/-1@-1`, "0004000101", "306980697b60bb4ce224b4edb7cbc62d",
	},
	{
		"per topic", dedup.PerTopic(dedup.HeaderKey()), dedup.Message{Topic: "orders", Headers: headers("Idempotency-Key", "order-1")},
		"topic:orders,order-1", "0005066f7264657273076f726465722d31", "73764007ef97aecdf3fd26c2af8f00df",
	},
	{
		"composite", dedup.AllOf(dedup.HeaderKey("Tenant"), dedup.JSONKey("id")), dedup.Message{Headers: headers("Tenant", "a,b"), Value: []byte(`{"id":"x"}`)},
		"all:`\"a,b\"`,`json:[\"x\"]`", "000603612c620700025b2278225d", "7b64f029c8e9adc3018054aa032e977a",
	},
	{"HTTP caller and key", nil, dedup.Message{}, "caller:alice,order-1", "000705616c696365076f726465722d31", "81648ff69866ae4f4ce87e9470634f51"},
	{"owner of a scope", nil, dedup.Message{}, "owner:", "0008", "cc08277157d44d7b027917e4db152ba9"},
}

func TestKeyVectors(t *testing.T) {
	for _, v := range keyVectors {
		t.Run(v.name, func(t *testing.T) {
			key, err := dedup.ParseKey(v.text)
			if v.fn != nil {
				key, err = v.fn(&v.m)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString([]byte(key)); got != v.hex {
				t.Errorf("key:\n got %s\nwant %s", got, v.hex)
			}
			if got := dedup.NewID("orders", key).String(); got != v.id {
				t.Errorf("ID: got %s, want %s", got, v.id)
			}
			if got := key.String(); got != v.text {
				t.Errorf("text: got %s, want %s", got, v.text)
			}
			if got, err := dedup.ParseKey(v.text); err != nil || got != key {
				t.Errorf("ParseKey(%s): got %x, %v, want %x", v.text, string(got), err, string(key))
			}
		})
	}
}

// TestKeysOfDifferentKinds: no header, record key or part can have the key of
// another kind.
func TestKeysOfDifferentKinds(t *testing.T) {
	payload, _ := dedup.PayloadHash()(&dedup.Message{Value: []byte("x")})
	for name, m := range map[string]dedup.Message{
		"header":     {Headers: headers("Idempotency-Key", string(payload))},
		"its text":   {Headers: headers("Idempotency-Key", payload.String())},
		"record key": {Key: []byte(payload)},
	} {
		key, err := dedup.FirstOf(dedup.HeaderKey(), dedup.RecordKey())(&m)
		if err == nil && key == payload {
			t.Errorf("%s: got the key of another message's payload", name)
		}
	}
}

func TestKeyText(t *testing.T) {
	for _, c := range []struct{ key, text string }{
		{"order-1", "order-1"},
		{"order:1", "order:1"},
		{"größe/1", "größe/1"},
		{"two words", `"two words"`},
		{"a,b", `"a,b"`},
		{`say "hi"`, "`say \"hi\"`"},
		{`"quoted"`, "`\"quoted\"`"},
		{"`", "\"`\""},
		{"tab\t", `"tab\t"`},
		{"\xff", `"\xff"`},
		{"\ufffd", "\ufffd"},
		{"\u200b", `"\u200b"`},
		{"payload:x", `"payload:x"`},
		{"json:[1]", `"json:[1]"`},
		{"owner:", `"owner:"`},
		{"derived-later:x", `"derived-later:x"`},
		{"jsonx:[1]", "jsonx:[1]"},
		{"\x00", "derived:"},
		{"\x00\x63abc", "derived:63616263"},
		{"\x00\x01short", "derived:0173686f7274"},
		{"\x00\x02[1.0]", "derived:025b312e305d"}, // JSONKey would write [1]
		{"\x00\x02[\"it's\\\\\"]", "json:[\"it's\\\\\"]"},
		{"\x00\x03", `record:""`},
		{"\x00\x05\x01t\x01k", "topic:t,k"},
		{"\x00\x05\x01t", "derived:050174"},
		{"\x00\x06", "derived:06"},
		{"\x00\x06\x81\x00k", "derived:0681006b"}, // a length that nobody writes so
		{"\x00\x08x", "derived:0878"},
	} {
		if got := dedup.Key(c.key).String(); got != c.text {
			t.Errorf("%q: got text %s, want %s", c.key, got, c.text)
		}
		if got, err := dedup.ParseKey(c.text); err != nil || string(got) != c.key {
			t.Errorf("ParseKey(%s): got %q, %v, want %q", c.text, string(got), err, c.key)
		}
	}
	for text, want := range map[string]string{ // spelled otherwise
		`json: [1.0, "a"] `: "\x00\x02[1,\"a\"]",
		`"order-1"`:         "order-1",
		"two words":         "two words",
		"a,b":               "a,b",
		"record:`a b`":      "\x00\x03a b",
		"topic:t,k,":        "",
	} {
		got, err := dedup.ParseKey(text)
		if want == "" && err == nil || want != "" && (err != nil || string(got) != want) {
			t.Errorf("ParseKey(%s): got %q, %v, want %q", text, string(got), err, want)
		}
	}
}

func TestParseKeyErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "empty"},
		{`""`, "empty"},
		{`"open`, "quote"},
		{`"a"b`, "quote"},
		{"`open", "quote"},
		{"\x00", "zero byte"},
		{`"\x00"`, "zero byte"},
		{"payload:00", "64 hexadecimal digits"},
		{"payload:" + strings.Repeat("g", 64), "64 hexadecimal digits"},
		{"json:1", "JSON array"},
		{"json:[1", "array"},
		{"json:", "array"},
		{"json:[1e99999999999999999999]", "exponent"},
		{"position:orders", "SOURCE/PARTITION@OFFSET"},
		{"position:orders/1@x", "SOURCE/PARTITION@OFFSET"},
		{"position:orders/4294967296@1", "SOURCE/PARTITION@OFFSET"},
		{"position:orders/1@1,x", "SOURCE/PARTITION@OFFSET"},
		{"topic:orders", "1 parts"},
		{"topic:a,b,c", "3 parts"},
		{`topic:"a`, "quote"},
		{`topic:"a"b,c`, "comma"},
		{"all:json:1", "array"},
		{"owner:x", "owner:"},
		{"derived:0", "hexadecimal"},
		{"derived-later:x", "derived-later:"},
		{strings.Repeat("k", dedup.MaxKey+1), "1024"},
	} {
		if key, err := dedup.ParseKey(c.text); err == nil || key != "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseKey(%.20q): got %q, %v, want an error with %q", c.text, string(key), err, c.want)
		}
	}
}

// TestSetKeyThenHeaderKey: what a producer sets is what a consumer finds.
func TestSetKeyThenHeaderKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := dedup.Key(rapid.OneOf(
			rapid.StringMatching(`" ?[a-z"\\]{0,6}" ?(;[a-z]=1)?`), rapid.String(),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		).Filter(func(s string) bool { return s != "" && s[0] != 0 }).Draw(t, "key"))
		var m dedup.Message
		m.Headers.SetKey(key)
		got, err := dedup.HeaderKey()(&m)
		if key == `""` {
			key, err = got, nil // reads as an empty string in any case
		}
		if err != nil || got != key {
			t.Fatalf("set %q, header %q: got %q, %v", string(key), m.Headers[0].Value, string(got), err)
		}
	})
	derived, _ := dedup.PositionKey()(&dedup.Message{Position: dedup.Position{Source: "orders", Offset: 1}})
	var m dedup.Message
	m.Headers.SetKey(derived)
	if got, err := dedup.HeaderKey()(&m); err != nil || string(got) != "position:orders/0@1" {
		t.Errorf("a derived key in a header: got %q, %v, want its text", string(got), err)
	}
}

// TestStructuredStrings: a complete string of RFC 9651 is what is inside of it, and
// anything else its bytes.
func TestStructuredStrings(t *testing.T) {
	for value, want := range map[string]string{
		`"k"`:       "k",
		` "k"  `:    "k",
		`"a b"`:     "a b",
		`"a\"b\\c"`: `a"b\c`,
		`"k";a;b=1;c=-1.5;d="x";e=tok/en:*;f=:aGk=:;g=?1;h=@17;i=%"f%c3%bc"`: "k",
		`"k"; *a_-.*9=1`: "k",
		`"k";a=::`:       "k",
	} {
		m := dedup.Message{Headers: headers("Idempotency-Key", value)}
		if got, err := dedup.HeaderKey()(&m); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", value, string(got), err, want)
		}
	}
	for _, value := range []string{
		`"`, `"k`, `k"`, `"k" x`, `"k"x`, `"a\b"`, `"a\`, "\"tab\t\"", `"größe"`, `'k'`, `"k";`, `"k";A`, `"k";a=`, `"k";a=?2`, `"k";a=:x`,
		`"k";a=1.`, `"k";a=.5`, `"k";a=1234567890123456`, `"k";a=1.2345`, `"k";a=@1.5`, `"k";a=%"x`, `"k";a=%"%C3"`, `"k";a=%x`, `"k", "k"`, `"k" ;a`,
		"\t\"k\"", `"k";a="`, `"k";a=-`,
	} {
		m := dedup.Message{Headers: headers("Idempotency-Key", value)}
		if got, err := dedup.HeaderKey()(&m); err != nil || string(got) != value {
			t.Errorf("%s: got %q, %v, want its bytes", value, string(got), err)
		}
	}
}

// TestJSONNumbers: two numbers are one key if, and only if, they are equal.
func TestJSONNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"1": "1", "1.0": "1", "1e0": "1", "10e-1": "1", "0.1E1": "1", "-1": "-1", "0": "0", "-0": "0", "0.000": "0", "0e5": "0",
		"100": "100", "1e2": "100", "1.5": "1.5", "150e-2": "1.5", "0.05": "0.05", "5e-2": "0.05", "-12.340": "-12.34",
		"9007199254740993": "9007199254740993", "9007199254740993.0": "9007199254740993", "9007199254740992": "9007199254740992",
		"1e20": "100000000000000000000", "1e21": "1e21", "12e20": "1200000000000000000000", "1e-20": "0.00000000000000000001", "1e-21": "1e-21",
		"1e999999999999999999": "1e999999999999999999", "1E-000000000000000000000000000005": "0.00001", "123e-400": "123e-400",
	} {
		m := dedup.Message{Value: []byte(`{"n":` + in + `}`)}
		if got, err := dedup.JSONKey("n")(&m); err != nil || string(got) != "\x00\x02["+want+"]" {
			t.Errorf("%s: got %q, %v, want %s", in, string(got), err, want)
		}
	}
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,3}0{0,3})(\.0{0,3}[0-9]{1,3}0{0,2})?([eE][+-]?0?[0-3]?[0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		key := func(n string) dedup.Key {
			key, err := dedup.JSONKey("n")(&dedup.Message{Value: []byte(`{"n":` + n + `}`)})
			if err != nil {
				t.Fatal(err)
			}
			return key
		}
		x, _ := new(big.Rat).SetString(a)
		y, _ := new(big.Rat).SetString(b)
		if equal := x.Cmp(y) == 0; equal != (key(a) == key(b)) {
			t.Fatalf("%s and %s: equal is %t, and the keys are %q and %q", a, b, equal, string(key(a)), string(key(b)))
		}
		text := strings.Trim(string(key(a)[2:]), "[]")
		if z, ok := new(big.Rat).SetString(text); !ok || z.Cmp(x) != 0 {
			t.Fatalf("%s: got %s, another number", a, text)
		}
	})
}

func TestJSONStrings(t *testing.T) {
	for in, want := range map[string]string{
		`"caf\u00e9"`: `"café"`, `"\u0041\/"`: `"A/"`, `"\ud83d\ude00"`: `"😀"`, `"\n\u000A\u0000\u001F"`: `"\u000a\u000a\u0000\u001f"`,
		`"\u0022\u005C\"\\"`: `"\"\\\"\\"`, `"\uD800"`: `"\ud800"`, `"\uDC00\uD800"`: `"\udc00\ud800"`, `"\ud800x"`: `"\ud800x"`, `"\ud800\u0041"`: `"\ud800A"`,
		`"\uFFFD"`: `"` + "\ufffd" + `"`, "\"\xff\"": "\"\xff\"", `"\u007f"`: "\"\x7f\"", `"\b\f\r\t"`: `"\u0008\u000c\u000d\u0009"`,
	} {
		m := dedup.Message{Value: []byte(`{"s":` + in + `}`)}
		if got, err := dedup.JSONKey("s")(&m); err != nil || string(got) != "\x00\x02["+want+"]" {
			t.Errorf("%s: got %q, %v, want %q", in, string(got), err, want)
		}
	}
}

func checkRoundTrip(t interface {
	Fatalf(string, ...any)
}, key dedup.Key) {
	text := key.String()
	if got, err := dedup.ParseKey(text); err != nil || got != key {
		t.Fatalf("key %q: printed as %s, and read as %q, %v", string(key), text, string(got), err)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || len(text) > 100*len(key)+20 {
		t.Fatalf("key %q: printed as %q", string(key), text)
	}
}

// drawKey draws keys that functions derive, from each other too.
func drawKey() *rapid.Generator[dedup.Key] {
	anyBytes := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) })
	text := rapid.OneOf(rapid.StringMatching("[a-z,:\"`' \\\\@/-]{0,12}"), rapid.String(), anyBytes)
	return rapid.Custom(func(t *rapid.T) dedup.Key {
		m := dedup.Message{
			Topic: text.Draw(t, "topic"), Key: []byte(text.Draw(t, "record key")), Value: []byte(text.Draw(t, "value")),
			Position: dedup.Position{Source: text.Draw(t, "source"), Partition: rapid.Int32().Draw(t, "partition"), Offset: rapid.Int64().Draw(t, "offset")},
		}
		if rapid.Bool().Draw(t, "published") {
			m.Published = time.Unix(0, rapid.Int64().Draw(t, "stamp"))
		}
		plain := func(*dedup.Message) (dedup.Key, error) { return dedup.Key("k" + text.Draw(t, "key")), nil }
		field, _ := json.Marshal(text.Draw(t, "field"))
		object := func(*dedup.Message) (dedup.Key, error) {
			return dedup.JSONKey("f")(&dedup.Message{Value: []byte(`{"f":[` + string(field) + `]}`)})
		}
		fns := []dedup.KeyFunc{plain, object, dedup.PayloadHash(), dedup.FirstOf(dedup.RecordKey(), dedup.PayloadHash()), dedup.PositionKey()}
		for range rapid.IntRange(0, 4).Draw(t, "nested") {
			a, b := rapid.IntRange(0, len(fns)-1).Draw(t, "a"), rapid.IntRange(0, len(fns)-1).Draw(t, "b")
			fns = append(fns, dedup.PerTopic(fns[a]), dedup.AllOf(fns[a], fns[b]))
		}
		key, err := fns[rapid.IntRange(0, len(fns)-1).Draw(t, "fn")](&m)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}).Filter(func(key dedup.Key) bool { return len(key) <= dedup.MaxKey })
}

func TestKeysPrintAndRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkRoundTrip(t, drawKey().Draw(t, "key")) })
	t.Run("any bytes", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			b := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "bytes")
			checkRoundTrip(t, dedup.Key(b))
			checkRoundTrip(t, dedup.Key(append([]byte{0, rapid.ByteRange(0, 10).Draw(t, "kind")}, b...)))
		})
	})
	t.Run("nested as deep as it goes", func(t *testing.T) {
		fn := func(*dedup.Message) (dedup.Key, error) { return "k \"`\\", nil }
		key, _ := fn(nil)
		for deep := fn; len(key) <= dedup.MaxKey; deep = dedup.AllOf(deep) {
			key, _ = deep(&dedup.Message{})
			if len(key) <= dedup.MaxKey {
				checkRoundTrip(t, key)
			}
		}
	})
}

func FuzzKey(f *testing.F) {
	for _, v := range keyVectors {
		key, _ := hex.DecodeString(v.hex)
		f.Add(string(key))
		f.Add(v.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || len(s) > dedup.MaxKey {
			return
		}
		checkRoundTrip(t, dedup.Key(s))
		if key, err := dedup.ParseKey(s); err == nil {
			checkRoundTrip(t, key)
		}
	})
}

func FuzzJSONKey(f *testing.F) {
	for _, s := range []string{`{"id":[1.50,"\ud83d\ude00",{"a":null,"a":true}]}`, `{"id":"caf\u00e9"}`, `{"id":-0e-5}`, `{"id":{}}`, `{"id":[ ]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := dedup.JSONKey("id")(&dedup.Message{Value: []byte(s)})
		if err != nil || len(key) > dedup.MaxKey {
			return
		}
		value := strings.TrimSuffix(strings.TrimPrefix(string(key), "\x00\x02["), "]")
		again, err := dedup.JSONKey("id")(&dedup.Message{Value: fmt.Appendf(nil, ` { "id" : %s } `, value)})
		if err != nil || again != key {
			t.Fatalf("%s: the key %q is not canonical: it makes %q, %v", s, string(key), string(again), err)
		}
		checkRoundTrip(t, key)
	})
}
