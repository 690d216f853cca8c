package relay

import (
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
//	bolt:DIR | mem:
type StoreURL struct {
	Kind string // "bolt" or "mem"
	Dir  string // bolt
}

// ParseStore reads a StoreURL.
func ParseStore(s string) (StoreURL, error) {
	kind, arg, ok := strings.Cut(s, ":")
	switch {
	case ok && kind == "bolt" && arg != "":
		return StoreURL{kind, arg}, nil
	case ok && kind == "bolt":
		return StoreURL{}, fmt.Errorf("%q names no directory: write bolt:DIR", s)
	case ok && kind == "mem" && arg == "":
		return StoreURL{Kind: kind}, nil
	}
	return StoreURL{}, fmt.Errorf("%q is no store: it is bolt:DIR (kept on disk) or mem: (forgotten at exit)", s)
}

func (u StoreURL) String() string { return u.Kind + ":" + u.Dir }

// open opens the store. The closer is never nil.
func (u StoreURL) open(vouchFrom time.Time, logger *slog.Logger) (dedup.Store, io.Closer, error) {
	if u.Kind == "mem" {
		return memstore.New(&memstore.Options{VouchFrom: vouchFrom}), io.NopCloser(nil), nil
	}
	s, err := boltstore.Open(u.Dir, &boltstore.Options{VouchFrom: vouchFrom, Logger: logger})
	return s, s, err
}
