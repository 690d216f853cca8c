package dedup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// HeaderIdempotencyKey is the header that producers write and HeaderKey reads
// by default.
const HeaderIdempotencyKey = "Idempotency-Key"

// MaxKey is the length in bytes that a key may have, with the two bytes that begin
// a derived one.
const MaxKey = 1024

// Key is the identity of a logical message: what its producer wrote in a header,
// or bytes that a KeyFunc derives. Derived keys begin with a zero byte and say
// how they were made, so no header can take the key of another message's payload.
// String prints a key and ParseKey reads it back.
//
// Keys can hold personal data, so they never appear in logs, metrics or errors;
// those show the ID and the Position.
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

// ID is what stores see of a key: the first 16 bytes of SHA-256 over the
// length-prefixed scope and key.
type ID [16]byte

// NewID returns the ID of key within scope. Both are length-prefixed, so
// ("a", "bc") and ("ab", "c") have different IDs.
func NewID(scope string, key Key) ID { return newIDs(scope).of(key) }

// String returns the ID as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != hex.EncodedLen(len(id)) {
		return id, fmt.Errorf("dedup: an ID has 32 hexadecimal digits, not %d characters", len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("dedup: ID %q: %w", s, err)
	}
	return id, nil
}

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

// KeyFunc derives the key of a message. It returns an error that matches
// ErrNoKey if there is no key to be found in the message, and any other error if the
// message contradicts itself. It must not change the message, and is called by many
// goroutines at once.
type KeyFunc func(*Message) (Key, error)

// HeaderKey takes the key from the first non-empty of the named headers
// (default: Idempotency-Key). The key is the header's bytes, with one exception: a
// complete string of RFC 9651 ("k", as HTTP has it, parameters and all) stands for
// the text inside its quotes. A broken string is taken as its bytes.
//
// One header with two different values is an error: guessing would process a
// message under another's name. So is a value that begins with a zero byte, as
// derived keys do.
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

// PayloadHash makes messages with equal topic, record key and payload one message.
// A key or payload that is missing is the same as an empty one. Headers do not count.
func PayloadHash() KeyFunc {
	return func(m *Message) (Key, error) {
		h := sha256.New()
		h.Write(appendPart(appendPart(nil, m.Topic), m.Key))
		h.Write(m.Value)
		return Key(h.Sum(derive(kindPayload, sha256.Size))), nil
	}
}

// RecordKey takes the record key of the message for its idempotency key: the one
// by which its producer chose the partition. Most topics have many messages of a
// record key; then it is of use as a part of AllOf.
func RecordKey() KeyFunc {
	return func(m *Message) (Key, error) {
		if len(m.Key) == 0 {
			return "", fmt.Errorf("%w: the message has no record key", ErrNoKey)
		}
		return Key(append(derive(kindRecord, len(m.Key)), m.Key...)), nil
	}
}

// JSONKey takes the key from fields of a JSON payload, each named by a path of
// object fields ("order.id"). The key holds their values and not how they are
// spelled: 1 and 1.0 are one key, 1 and "1" are two, "caf\u00e9" and "café" are
// one, and a long number keeps all its digits.
//
// A field that is missing, null, the empty string, or not reached because a value
// on its path is not an object, is ErrNoKey. So is a payload that is not JSON. Of a
// field that occurs twice the last counts, as it does for encoding/json.
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

// PositionKey takes source, partition, offset and broker timestamp for the
// key: it catches redelivery and nothing else. The timestamp tells a
// re-created topic or stream, whose offsets start again, from the old one. A
// message that no broker holds, such as a request, has no such key.
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

// PerTopic makes the same key on two topics two messages. Without it they are
// one message: keys span queues.
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

// AllOf takes the keys of all the functions together for the key: HeaderKey("Tenant")
// and JSONKey("id") make a key of both. If one of them has no key, the message has
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

// FirstOf takes the key of the first function that has one. It moves on after
// ErrNoKey (or an empty key), as for a message without the header, or one that is
// not JSON. Any other error is the answer: it says that the message contradicts
// itself.
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
	return fn(m)
}

// Fingerprint is what two payloads of one key must share. The zero Fingerprint
// is not compared, nor are those that functions of different names made: see
// Options.FingerprintName.
type Fingerprint [8]byte

// PayloadFingerprint is the default of Options.Fingerprint: the first 8 bytes
// of SHA-256 over the message's Value.
func PayloadFingerprint(m *Message) Fingerprint {
	sum := sha256.Sum256(m.Value)
	return Fingerprint(sum[:8])
}

// tagOf returns the tag of the fingerprint function of that name: the first 4 bytes
// of the name's SHA-256, and 0 for the empty name.
func tagOf(name string) Tag {
	if name == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(name))
	return Tag(max(binary.BigEndian.Uint32(sum[:]), 1))
}

// NoFingerprint turns the comparison of payloads off.
func NoFingerprint(*Message) Fingerprint { return Fingerprint{} }
