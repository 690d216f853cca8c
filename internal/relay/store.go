package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// StoreURL says where the records are kept:
//
//	bolt:DIR[?max-bytes=N] | redis://HOST:PORT/DB | redis+sentinel://HOST:PORT,HOST:PORT/MASTER |
//	redis+cluster://HOST:PORT,HOST:PORT | mem:
type StoreURL struct {
	Kind     string // "bolt", "redis" or "mem"
	Dir      string // bolt
	MaxBytes int64  // bolt; 0: the disk is the limit
	Redis    redisURL
}

// ParseStore reads a StoreURL.
func ParseStore(s string) (StoreURL, error) {
	if isRedis(s) {
		u, err := parseRedis(s)
		if err != nil {
			return StoreURL{}, err
		}
		return StoreURL{Kind: "redis", Redis: u}, nil
	}
	kind, arg, ok := strings.Cut(s, ":")
	switch {
	case ok && kind == "bolt":
		return parseBolt(arg)
	case ok && kind == "mem" && arg == "":
		return StoreURL{Kind: kind}, nil
	}
	return StoreURL{}, fmt.Errorf("%q is no store: it is bolt:DIR (kept on disk), redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT (shared), or mem: (forgotten at exit)", redacted("store", s))
}

func parseBolt(s string) (StoreURL, error) {
	dir, query, more := strings.Cut(s, "?")
	u := StoreURL{Kind: "bolt", Dir: dir}
	if dir == "" {
		return StoreURL{}, fmt.Errorf("%q names no directory: write bolt:DIR", "bolt:"+s)
	}
	if !more {
		return u, nil
	}
	name, value, _ := strings.Cut(query, "=")
	take := u.boltParameters()[name]
	if take == nil {
		return StoreURL{}, fmt.Errorf("%q: a bolt store has no parameter %q: it has max-bytes", "bolt:"+s, name)
	}
	if err := take(value); err != nil {
		return StoreURL{}, fmt.Errorf("%q: %w", "bolt:"+s, err)
	}
	return u, nil
}

func (u *StoreURL) boltParameters() parameters { return parameters{"max-bytes": u.setMaxBytes} }

func (u *StoreURL) setMaxBytes(value string) (err error) {
	n, unit := strings.TrimRight(value, "KMGTiB"), int64(0)
	switch value[len(n):] {
	case "":
		unit = 1
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	}
	if u.MaxBytes, err = strconv.ParseInt(n, 10, 64); err != nil || unit == 0 || u.MaxBytes <= 0 || u.MaxBytes > math.MaxInt64/unit {
		return fmt.Errorf("max-bytes %q is no size: write a number of bytes, or such as 500MiB or 20GiB", value)
	}
	u.MaxBytes *= unit
	return nil
}

// String returns the URL without what a secret could be in.
func (u StoreURL) String() string {
	if u.Kind == "redis" {
		return u.Redis.String()
	}
	if u.MaxBytes > 0 {
		return fmt.Sprintf("%s:%s?max-bytes=%d", u.Kind, u.Dir, u.MaxBytes)
	}
	return u.Kind + ":" + u.Dir
}

// open opens the store. Without an error there is a closer.
func (u StoreURL) open(ctx context.Context, vouchFrom time.Time, logger *slog.Logger) (driver.Store, io.Closer, error) {
	switch u.Kind {
	case "mem":
		return memstore.New(&memstore.Options{VouchFrom: vouchFrom}), io.NopCloser(nil), nil
	case "redis":
		return u.Redis.open(ctx, vouchFrom, logger)
	}
	s, err := boltstore.Open(u.Dir, &boltstore.Options{MaxBytes: u.MaxBytes, VouchFrom: vouchFrom, Logger: logger})
	return s, s, err
}
