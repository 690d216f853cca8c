package lint

import "path"

// exemption is a directory whose comments may have headless clauses for now. It is for
// the package alone, not for those below it.
type exemption struct {
	dir   string
	until string // the change that rewrites the package, and takes it off the list
}

// exemptions are all of them. No package is to be added.
var exemptions = []exemption{
	{"transport/kafka", "the transports get a common floor"},
	{"transport/nats", "its order becomes a state machine with names"},
	{"store/bolt", "its log becomes a type of its own"},
	{"store/redis", "it is made to follow failovers"},
	{"store/redis/lua", "store/redis is made to follow failovers"},
	{"internal/relay", "the relay moves to transport/franz"},
	{"cmd/dedup-relay", "the relay moves to transport/franz"},
}

// exemptionOf returns the exemption of a file; nil if it has none.
func exemptionOf(name string) *exemption {
	for i := range exemptions {
		if exemptions[i].dir == path.Dir(name) {
			return &exemptions[i]
		}
	}
	return nil
}
