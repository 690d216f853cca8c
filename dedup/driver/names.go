package driver

import (
	"encoding/hex"
	"fmt"
)

// ID is the hash of a scope and a key, the only form in which stores see a key. It is the
// first 16 bytes of SHA-256 over scope and key, each with its length before it.
type ID [16]byte

// String returns the ID as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID parses 32 hexadecimal digits, as [ID.String] writes them.
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

// Token is a fencing token: a number that grows with every claim of a key.
type Token uint64

// Fingerprint is a short hash of a payload, kept in the record of a key. A message with the
// same key and another Fingerprint is a conflict. The zero Fingerprint is equal to every
// other. Fingerprints with different tags are not compared: see Options.FingerprintName.
type Fingerprint [8]byte

// Tag is a short hash of Options.FingerprintName. Fingerprints with different tags are not
// compared.
type Tag uint32

// Position is where the broker holds a message. It is the same in every redelivery of the
// message. A copy that was published again has another Position. A message that no broker
// holds, such as a request, has the zero Position.
type Position struct {
	Source    string // Kafka: the topic. JetStream: the stream.
	Partition int32  // Kafka: the partition. JetStream: 0.
	Offset    int64  // Kafka: the offset. JetStream: the stream sequence.
}

// String returns "source/partition@offset".
func (p Position) String() string { return fmt.Sprintf("%s/%d@%d", p.Source, p.Partition, p.Offset) }
