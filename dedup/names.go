package dedup

import "github.com/oncequeue/oncequeue/dedup/driver"

// Names that users and authors of stores share. Package driver has their methods.
type (
	// ID is the hash of a scope and a key, the only form in which stores see a key.
	ID = driver.ID
	// Token is a fencing token: a number that grows with every claim of a key.
	Token = driver.Token
	// Position is where the broker holds a message. It is the same in every redelivery of
	// the message.
	Position = driver.Position
	// Fingerprint is a short hash of a payload, kept in the record of a key. A message with
	// the same key and another Fingerprint is a conflict.
	Fingerprint = driver.Fingerprint
)

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}
