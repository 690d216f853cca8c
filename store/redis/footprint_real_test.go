//go:build real

package redisstore_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// TestRealFootprint: a settled key with an empty result takes at most 230 bytes of
// the server's memory, all in, and 260 of its append-only file.
func TestRealFootprint(t *testing.T) {
	client, ok := realClientOf(t, patient.Timeout).(*redis.Client)
	if !ok {
		t.Skip("the figures are those of one server")
	}
	s := realStore(t, client, &redisstore.Options{Prefix: rand.Text()[:2] + ":", Timeout: patient.Timeout}) // a prefix as long as the default
	granted(t, s, claim("first", 1))                                                                        // what comes once: the ledger, scripts, buffers
	figure := func(name string) float64 {
		info, err := client.Info(context.Background()).Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "\n"+name+":")
		value, _, _ := strings.Cut(rest, "\r")
		n, _ := strconv.ParseFloat(value, 64) // 0 without an append-only file
		return n
	}
	memory, file := figure("used_memory"), figure("aof_current_size")
	const n, size = 100_000, 250
	for i := range n / size {
		claims, ends := make([]driver.Op, size), make([]driver.Op, size)
		for j := range claims {
			op := claim("", uint64(j))
			op.ID = driver.ID{15: 1}
			binary.LittleEndian.PutUint64(op.ID[:], uint64(i*size+j)*0x9E3779B97F4A7C15)
			op.Position.Offset = 1<<30 + int64(j)
			claims[j] = op
		}
		for j, r := range apply(t, s, claims...) {
			ends[j] = complete(claims[j], r.Record.Token)
		}
		apply(t, s, ends...)
	}
	if got := (figure("used_memory") - memory) / n; got > 230 {
		t.Errorf("memory: got %.1f bytes a key, want at most 230", got)
	} else {
		t.Logf("memory: %.1f bytes a key", got)
	}
	if got := (figure("aof_current_size") - file) / n; got > 260 {
		t.Errorf("append-only file: got %.1f bytes a message, want at most 260", got)
	} else {
		t.Logf("append-only file: %.1f bytes a message", got)
	}
}
