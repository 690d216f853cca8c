package relay

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// A NATS message has no key and no timestamp of its own, and its headers are
// text. What Kafka has beyond that travels in headers, and comes out of them
// again on the way back:
//
//	Kafka                         NATS
//	key                           Dedup-Key
//	timestamp                     Dedup-Published, RFC 3339; without it, the stream's timestamp
//	header value that is no text  =?binary?B?BASE64?=
//	header value null             =?binary?N??=
//	header name that is no token  Dedup-Header-HEX
//	-                             Nats-* headers, which instruct a server, are dropped
//
// Headers of one name keep their order; NATS keeps none between names.
const (
	headerKey       = headerPrefix + "Key"
	headerPublished = headerPrefix + "Published"
	headerNamed     = headerPrefix + "Header-"
	natsPrefix      = "Nats-"

	wordBegin = "=?binary?"
	wordEnd   = "?="
	wordNull  = wordBegin + "N?" + wordEnd
)

// fromNATS returns m with what travelled in its headers put in place. It shares
// m's bytes.
func fromNATS(m *dedup.Message) *dedup.Message {
	out := *m
	out.Headers = make(dedup.Headers, 0, len(m.Headers))
	for _, h := range m.Headers {
		switch {
		case strings.EqualFold(h.Key, headerKey):
			out.Key = decodeValue(h.Value)
		case strings.EqualFold(h.Key, headerPublished):
			if t, err := time.Parse(time.RFC3339Nano, string(h.Value)); err == nil {
				out.Published = t
			}
		case hasPrefix(h.Key, natsPrefix):
		default:
			out.Headers = append(out.Headers, dedup.Header{Key: decodeName(h.Key), Value: decodeValue(h.Value)})
		}
	}
	return &out
}

// toNATS puts what a NATS message has no place for into the headers of m.
func toNATS(m *dedup.Message) {
	for i, h := range m.Headers {
		m.Headers[i] = dedup.Header{Key: encodeName(h.Key), Value: encodeValue(h.Value)}
	}
	if m.Key != nil {
		m.Headers = append(m.Headers, dedup.Header{Key: headerKey, Value: encodeValue(m.Key)})
	}
	if !m.Published.IsZero() {
		m.Headers = append(m.Headers, dedup.Header{Key: headerPublished, Value: m.Published.UTC().AppendFormat(nil, time.RFC3339Nano)})
	}
}

// encodeValue leaves text as it is that would not be taken for an encoded word.
func encodeValue(v []byte) []byte {
	if v == nil {
		return []byte(wordNull)
	}
	plain := !bytes.HasPrefix(v, []byte(wordBegin)) && len(bytes.TrimSpace(v)) == len(v)
	for _, c := range v {
		plain = plain && c >= ' ' && c < 0x7f
	}
	if plain {
		return v
	}
	return []byte(wordBegin + "B?" + base64.StdEncoding.EncodeToString(v) + wordEnd)
}

// decodeValue leaves what is not an encoded word as it is.
func decodeValue(v []byte) []byte {
	word, ok := strings.CutPrefix(string(v), wordBegin)
	if word, end := strings.CutSuffix(word, wordEnd); ok && end {
		switch {
		case word == "N?":
			return nil
		case strings.HasPrefix(word, "B?"):
			if plain, err := base64.StdEncoding.DecodeString(word[2:]); err == nil {
				return plain
			}
		}
	}
	return v
}

// encodeName leaves names as they are that are tokens (RFC 9110, 5.6.2), and not
// the server's nor the relay's own code.
func encodeName(name string) string {
	plain := name != "" && !hasPrefix(name, natsPrefix) && !hasPrefix(name, headerNamed)
	for i := range len(name) {
		c := name[i]
		plain = plain && c > ' ' && c < 0x7f && strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) < 0
	}
	if plain {
		return name
	}
	return headerNamed + hex.EncodeToString([]byte(name))
}

func decodeName(name string) string {
	if hasPrefix(name, headerNamed) {
		if plain, err := hex.DecodeString(name[len(headerNamed):]); err == nil {
			return string(plain)
		}
	}
	return name
}

func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}
