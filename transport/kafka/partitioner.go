package kafkatransport

import "encoding/binary"

// javaPartition returns the partition of n that Kafka's Java client chooses for
// the key, so that a relay keeps the keys of a topic where its other producers
// put them.
func javaPartition(key []byte, n int) int { return int(murmur2(key)&0x7fffffff) % n }

// murmur2 is MurmurHash2 with the seed of the Java client
// (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(b []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := seed ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
