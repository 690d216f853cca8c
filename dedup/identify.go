package dedup

import (
	"fmt"

	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// identifier is the first step: it names a message.
type identifier struct {
	key KeyFunc
	ids ids
	o   *Options
}

// identify derives the key. A message without one is decided by OnUnkeyed.
func (d *identifier) identify(x *delivery) bool {
	x.m.Claim = Claim{}
	key, err := deriveKey(d.key, x.m)
	if err == nil {
		x.fingerprint, err = d.fingerprint(x.m)
	}
	if err == nil {
		x.id = d.ids.of(key)
		x.res.ID = x.id
		x.m.Claim = Claim{ID: x.id, Key: key}
		return true
	}
	err = mark.Finite(err)
	x.end(Unkeyed, err)
	x.decide(d.o.OnUnkeyed, err)
	return false
}

func (d *identifier) fingerprint(m *Message) (f Fingerprint, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("dedup: message at %v: the fingerprint function: %w", m.Position, panicError(r))
		}
	}()
	return d.o.Fingerprint(m), nil
}
