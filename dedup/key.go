package dedup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// HeaderIdempotencyKey is the header that [Headers.SetKey] writes and [HeaderKey] reads by
// default.
const HeaderIdempotencyKey = "Idempotency-Key"

// MaxKey is the greatest length of a key, in bytes, with the two bytes that begin a derived
// one. A message with a longer key counts as unkeyed.
const MaxKey = 1024

// Key is the identity of a logical message: bytes that a [KeyFunc] derived. The key from a
// header is the bytes that the producer wrote. Other keys begin with a zero byte, and say
// how they were derived, so no header can take the key of another message's payload. String
// prints a key, and [ParseKey] reads it back.
//
// Keys can hold personal data, so they never appear in logs, metrics or errors of this
// module. Those show the [ID] and the [Position].
type Key string

// A derived key is a zero byte, one of these kinds, and a value. Stores keep IDs of
// keys, so neither a kind nor the form of its value ever changes.
const (
	derived = 0 // the first byte

	kindPayload   = 1 // SHA-256 over topic, record key and payload: see PayloadHash
	kindJSON      = 2 // a canonical JSON array: see JSONKey
	kindRecord    = 3 // the record key
	kindPosition  = 4 // length and source, partition, offset, timestamp if there is one: see PositionKey
	kindPerTopic  = 5 // two parts: topic, key
	kindComposite = 6 // the keys, each a part: see AllOf
	kindCaller    = 7 // two parts: who calls over HTTP, key
	kindOwner     = 8 // nothing: the record of who uses the scope
)

// derive returns the derived key of the kind with room for a value of n bytes.
func derive(kind byte, n int) []byte {
	return append(make([]byte, 0, 2+n), derived, kind)
}

// appendPart appends a part of a value: its length as a uvarint, and itself.
func appendPart[T ~string | ~[]byte](b []byte, part T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

// NewID returns the ID of key within scope. Scope and key are kept apart: ("a", "bc") and
// ("ab", "c") have different IDs.
func NewID(scope string, key Key) ID { return newIDs(scope).of(key) }

// ids makes the IDs of one scope; the scope is encoded once.
type ids struct{ prefix []byte }

func newIDs(scope string) ids {
	return ids{append(binary.AppendUvarint(nil, uint64(len(scope))), scope...)}
}

func (s ids) of(key Key) ID {
	var stack [256]byte // most keys fit: no allocation
	b := append(stack[:0], s.prefix...)
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	sum := sha256.Sum256(b)
	return ID(sum[:16])
}

// KeyFunc derives the key of a message. It returns an error that matches [ErrNoKey] if
// there is no key to be found in the message, and any other error if the message
// contradicts itself. Both make the message unkeyed, and Options.OnUnkeyed decides. A panic
// counts as an error.
//
// A KeyFunc must not change the message. Many goroutines call it at once. It must give one
// logical message the same key in every version of a program: a message that gets another
// key after a deployment is a new message.
type KeyFunc func(*Message) (Key, error)

// HeaderKey returns a KeyFunc that takes the key from the first of the named headers that
// is present and not empty. Without names, that is the header Idempotency-Key. The key is
// trusted: a producer that writes another message's key makes its message a duplicate or
// a conflict.
//
// The key is the header's bytes, with one exception. A complete string of RFC 9651, such as
// "k" with its quotes, and maybe with parameters behind them, stands for the text inside
// the quotes. A broken string is taken as its bytes.
//
// If one header has two different values, the KeyFunc returns an error, because either
// value may be the key of another message. So it does for a value that begins with a zero
// byte, as derived keys do.
func HeaderKey(names ...string) KeyFunc {
	if len(names) == 0 {
		names = []string{HeaderIdempotencyKey}
	}
	return func(m *Message) (Key, error) {
		for _, name := range names {
			var found []byte
			for i := range m.Headers { // not Values, which would allocate for each message
				if len(m.Headers[i].Value) == 0 || !strings.EqualFold(m.Headers[i].Key, name) {
					continue
				}
				v := unquoted(m.Headers[i].Value)
				if len(found) > 0 && len(v) > 0 && !bytes.Equal(found, v) {
					return "", fmt.Errorf("header %q has two different values", name)
				}
				if len(found) == 0 {
					found = v
				}
			}
			if len(found) == 0 {
				continue
			}
			if found[0] == derived {
				return "", fmt.Errorf("header %q begins with a zero byte, as only derived keys do", name)
			}
			return Key(found), nil
		}
		return "", fmt.Errorf("%w: no header %s", ErrNoKey, strings.Join(names, ", "))
	}
}

// PayloadHash returns a KeyFunc for which messages with equal Topic, equal Key and equal
// Value are one message. A missing Key or Value is the same as an empty one. Headers do not
// count.
func PayloadHash() KeyFunc {
	return func(m *Message) (Key, error) {
		h := sha256.New()
		h.Write(appendPart(appendPart(nil, m.Topic), m.Key))
		h.Write(m.Value)
		return Key(h.Sum(derive(kindPayload, sha256.Size))), nil
	}
}

// RecordKey returns a KeyFunc that takes Key, the record key by which the producer chose the
// partition. In most topics many messages have one record key. There, RecordKey is of use as
// a part of [AllOf] only.
func RecordKey() KeyFunc {
	return func(m *Message) (Key, error) {
		if len(m.Key) == 0 {
			return "", fmt.Errorf("%w: the message has no record key", ErrNoKey)
		}
		return Key(append(derive(kindRecord, len(m.Key)), m.Key...)), nil
	}
}

// JSONKey returns a KeyFunc that takes the key from one or more fields of a JSON payload.
// Each path names a field through nested objects, such as "order.id". The key consists of
// the values of the fields, whatever their spelling: 1 and 1.0 are one key, 1 and "1" are
// two, "caf\u00e9" and "café" are one. Numbers are exact: a long one keeps all its digits.
//
// The error matches [ErrNoKey] if a field is missing, null or the empty string, if a value
// on its path is not an object, or if the payload is not JSON. If a field occurs twice in
// an object, the last one counts, as in encoding/json.
func JSONKey(paths ...string) KeyFunc {
	split := make([][]string, len(paths))
	for i, p := range paths {
		split[i] = strings.Split(p, ".")
	}
	return func(m *Message) (Key, error) {
		if len(paths) == 0 {
			return "", errors.New("JSONKey needs at least one path")
		}
		if !json.Valid(m.Value) {
			return "", fmt.Errorf("%w: the payload is not JSON", ErrNoKey)
		}
		key := append(derive(kindJSON, 64), '[')
		for i, path := range split {
			token := json.RawMessage(m.Value)
			for _, name := range path {
				var object map[string]json.RawMessage
				if json.Unmarshal(token, &object) != nil {
					object = nil
				}
				token = object[name]
			}
			token = bytes.TrimSpace(token)
			if t := string(token); t == "" || t == "null" || t == `""` {
				return "", fmt.Errorf("%w: no field %q in the JSON payload", ErrNoKey, paths[i])
			}
			if i > 0 {
				key = append(key, ',')
			}
			var err error
			if key, err = appendCanonical(key, token); err != nil {
				return "", fmt.Errorf("%w: the field %q in the JSON payload has %w", ErrNoKey, paths[i], err)
			}
		}
		return Key(append(key, ']')), nil
	}
}

// PositionKey returns a KeyFunc that makes the key of Position and Published. It recognises
// a redelivery and nothing else: a copy that was published again has another position.
//
// Published is in the key because the offsets of a topic or stream start again when it is
// re-created. A message with the zero Position, such as a request, has no key: the error
// matches [ErrNoKey].
func PositionKey() KeyFunc {
	return func(m *Message) (Key, error) {
		p := m.Position
		if p == (Position{}) {
			return "", fmt.Errorf("%w: the message has no position", ErrNoKey)
		}
		return positionKey(p, m.Published), nil
	}
}

func positionKey(p Position, published time.Time) Key {
	b := appendPart(derive(kindPosition, len(p.Source)+30), p.Source)
	b = binary.AppendVarint(b, int64(p.Partition))
	b = binary.AppendVarint(b, p.Offset)
	if !published.IsZero() {
		b = binary.AppendVarint(b, published.UnixNano())
	}
	return Key(b)
}

// PerTopic returns a KeyFunc that adds Topic to the key of fn, so that the same key on two
// topics means two messages. Without PerTopic it means one message, whatever the topic.
func PerTopic(fn KeyFunc) KeyFunc {
	return func(m *Message) (Key, error) {
		key, err := callKey(fn, m)
		if err != nil {
			return "", err
		}
		if key == "" {
			return "", ErrNoKey
		}
		return compose(kindPerTopic, m.Topic, string(key)), nil
	}
}

// AllOf returns a KeyFunc whose key consists of the keys of all fns, such as that of
// HeaderKey("Tenant") and that of JSONKey("id"). If one of fns has no key, the message has
// none.
func AllOf(fns ...KeyFunc) KeyFunc {
	return func(m *Message) (Key, error) {
		if len(fns) == 0 {
			return "", errors.New("AllOf needs at least one function")
		}
		keys := make([]string, len(fns))
		for i, fn := range fns {
			key, err := callKey(fn, m)
			if err != nil {
				return "", err
			}
			if key == "" {
				return "", ErrNoKey
			}
			keys[i] = string(key)
		}
		return compose(kindComposite, keys...), nil
	}
}

// compose returns the derived key of parts.
func compose(kind byte, parts ...string) Key {
	n := 0
	for _, p := range parts {
		n += binary.MaxVarintLen16 + len(p)
	}
	b := derive(kind, n)
	for _, p := range parts {
		b = appendPart(b, p)
	}
	return Key(b)
}

// FirstOf returns a KeyFunc that takes the key of the first of fns that has one. It goes on
// to the next function if the error matches [ErrNoKey] or the key is empty, as for a message
// without the header, or one that is not JSON. Any other error is returned: it says that the
// message contradicts itself.
func FirstOf(fns ...KeyFunc) KeyFunc {
	return func(m *Message) (Key, error) {
		for _, fn := range fns {
			key, err := callKey(fn, m)
			if err == nil && key != "" || err != nil && !errors.Is(err, ErrNoKey) {
				return key, err
			}
		}
		return "", fmt.Errorf("%w: none of %d ways to derive it applies", ErrNoKey, len(fns))
	}
}

// deriveKey calls fn and holds its answer to the rules for keys. Its errors
// name the position of the message and never the key.
func deriveKey(fn KeyFunc, m *Message) (Key, error) {
	key, err := callKey(fn, m)
	switch {
	case err != nil:
	case key == "":
		err = fmt.Errorf("%w: the key is empty", ErrNoKey)
	case len(key) > MaxKey:
		err = fmt.Errorf("the key has %d bytes, more than %d: hash it, or derive it from less", len(key), MaxKey)
	default:
		return key, nil
	}
	return "", &keyError{m.Position, err}
}

// keyError says why a message has no usable key. It is put into words when
// somebody asks: where unkeyed messages are processed, nobody may.
type keyError struct {
	at  Position
	err error
}

func (e *keyError) Error() string { return fmt.Sprintf("dedup: message at %v: %v", e.at, e.err) }
func (e *keyError) Unwrap() error { return e.err }

// callKey turns a panic of fn into an error: one odd message must not take
// the consumer down.
func callKey(fn KeyFunc, m *Message) (key Key, err error) {
	defer func() {
		if r := recover(); r != nil {
			key, err = "", fmt.Errorf("the key function: %w", panicError(r))
		}
	}()
	key, err = fn(m)
	return key, mark.Finite(err)
}

// PayloadFingerprint is the default of Options.Fingerprint. It returns the first 8 bytes of
// SHA-256 over Value. Headers are not part of it.
func PayloadFingerprint(m *Message) Fingerprint {
	sum := sha256.Sum256(m.Value)
	return Fingerprint(sum[:8])
}

// tagOf returns the tag of the fingerprint function of that name: the first 4 bytes
// of the name's SHA-256, and 0 for the empty name.
func tagOf(name string) driver.Tag {
	if name == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(name))
	return driver.Tag(max(binary.BigEndian.Uint32(sum[:]), 1))
}

// NoFingerprint is a value for Options.Fingerprint that turns the comparison of payloads
// off: it returns the zero Fingerprint, so no message is a conflict.
func NoFingerprint(*Message) Fingerprint { return Fingerprint{} }
