package relay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/oncequeue/oncequeue/dedup"
)

// ParseKey reads a comma-separated list of ways to derive the key; the first
// that applies counts:
//
//	header:NAME | json:PATH | record-key | payload | position
func ParseKey(s string) (dedup.KeyFunc, error) {
	var ways []dedup.KeyFunc
	for way := range strings.SplitSeq(s, ",") {
		kind, arg, _ := strings.Cut(strings.TrimSpace(way), ":")
		switch {
		case kind == "header" && arg != "":
			ways = append(ways, dedup.HeaderKey(arg))
		case kind == "json" && !slices.Contains(strings.Split(arg, "."), ""):
			ways = append(ways, dedup.JSONKey(arg))
		case kind == "record-key" && arg == "":
			ways = append(ways, dedup.RecordKey())
		case kind == "payload" && arg == "":
			ways = append(ways, dedup.PayloadHash())
		case kind == "position" && arg == "":
			ways = append(ways, dedup.PositionKey())
		default:
			return nil, fmt.Errorf("%q: %q is no way to derive a key: it is header:NAME, json:PATH, record-key, payload or position", s, way)
		}
	}
	if len(ways) == 1 {
		return ways[0], nil
	}
	return dedup.FirstOf(ways...), nil
}
