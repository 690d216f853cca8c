package natstransport

import (
	"strings"
	"sync"

	"github.com/oncequeue/oncequeue/dedup"
)

// OrderByHeader is a Config.OrderBy: messages with the same value of the header are
// handled in their order.
func OrderByHeader(name string) func(*dedup.Message) string {
	return func(m *dedup.Message) string {
		value, _ := m.Headers.Get(name)
		return string(value)
	}
}

// OrderByToken is a Config.OrderBy: messages whose subjects have the same n-th token,
// counted from 1, are handled in their order. orders.eu.42 has the third token 42.
func OrderByToken(n int) func(*dedup.Message) string {
	return func(m *dedup.Message) string {
		i := 0
		for token := range strings.SplitSeq(m.Topic, ".") {
			if i++; i == n {
				return token
			}
		}
		return ""
	}
}

// order lets one message of each key go on at a time.
type order struct {
	by func(*dedup.Message) string

	mu   sync.Mutex
	keys map[string][]*delivery // a key is there while one of its messages goes on; those behind it
}

func newOrder(by func(*dedup.Message) string) *order {
	return &order{by: by, keys: make(map[string][]*delivery)}
}

// first returns true if d may go on. Else it comes out of next when its turn has come.
func (o *order) first(d *delivery) bool {
	d.key = o.by(&d.message)
	if d.key == "" {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	behind, busy := o.keys[d.key]
	if busy {
		o.keys[d.key] = append(behind, d)
		return false
	}
	o.keys[d.key] = nil
	return true
}

// next returns the one behind d, which has ended; nil if there is none.
func (o *order) next(d *delivery) *delivery {
	if d.key == "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	behind := o.keys[d.key]
	if len(behind) == 0 {
		delete(o.keys, d.key)
		return nil
	}
	next := behind[0]
	behind[0] = nil
	o.keys[d.key] = behind[1:]
	return next
}
