package dedup

import "sync"

// memory is used again by later calls.
type memory struct {
	slabs sync.Pool // of *[]delivery, all zero
	ones  sync.Pool // of *doing, zero
}

func (m *memory) init() { m.ones.New = func() any { return new(doing) } }

// doing is the memory of one Do, which is used again.
type doing struct {
	delivery
	result Result
	xs     [1]*delivery
}

// slab returns n new deliveries.
func (m *memory) slab(n int) []delivery {
	if used, ok := m.slabs.Get().(*[]delivery); ok && cap(*used) >= n {
		return (*used)[:n]
	}
	return make([]delivery, n)
}
