package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// StoreURL says where the records are kept:
//
//	bolt:DIR | redis://HOST:PORT/DB | redis+cluster://HOST:PORT,HOST:PORT | mem:
type StoreURL struct {
	Kind  string // "bolt", "redis" or "mem"
	Dir   string // bolt
	Redis redisURL
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
	case ok && kind == "bolt" && arg != "":
		return StoreURL{Kind: kind, Dir: arg}, nil
	case ok && kind == "bolt":
		return StoreURL{}, fmt.Errorf("%q names no directory: write bolt:DIR", s)
	case ok && kind == "mem" && arg == "":
		return StoreURL{Kind: kind}, nil
	}
	return StoreURL{}, fmt.Errorf("%q is no store: it is bolt:DIR (kept on disk), redis://HOST:PORT/DB or redis+cluster://HOST:PORT,HOST:PORT (shared), or mem: (forgotten at exit)", redacted("store", s))
}

// String returns the URL without what a secret could be in.
func (u StoreURL) String() string {
	if u.Kind == "redis" {
		return u.Redis.String()
	}
	return u.Kind + ":" + u.Dir
}

// open opens the store. Without an error there is a closer.
func (u StoreURL) open(ctx context.Context, vouchFrom time.Time, logger *slog.Logger) (dedup.Store, io.Closer, error) {
	switch u.Kind {
	case "mem":
		return memstore.New(&memstore.Options{VouchFrom: vouchFrom}), io.NopCloser(nil), nil
	case "redis":
		return u.Redis.open(ctx, vouchFrom, logger)
	}
	s, err := boltstore.Open(u.Dir, &boltstore.Options{VouchFrom: vouchFrom, Logger: logger})
	return s, s, err
}
