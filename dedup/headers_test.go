package dedup_test

import (
	"fmt"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
)

func headers(pairs ...string) (h dedup.Headers) {
	for i := 0; i < len(pairs); i += 2 {
		h = append(h, dedup.Header{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return h
}

func TestHeadersGet(t *testing.T) {
	h := headers("a", "1", "B", "2", "A", "3", "empty", "")
	h = append(h, dedup.Header{Key: "nil"})
	for _, c := range []struct {
		name, want string
		found      bool
	}{
		{"a", "1", true},
		{"A", "1", true},
		{"b", "2", true},
		{"EMPTY", "", true},
		{"nil", "", true},
		{"c", "", false},
		{"", "", false},
	} {
		if got, found := h.Get(c.name); string(got) != c.want || found != c.found {
			t.Errorf("Get(%q): got %q, %t, want %q, %t", c.name, got, found, c.want, c.found)
		}
	}
	if got, found := dedup.Headers(nil).Get("a"); got != nil || found {
		t.Errorf("Get without headers: got %q, %t, want none", got, found)
	}
}

func TestHeadersValues(t *testing.T) {
	h := headers("a", "1", "b", "2", "A", "3", "a", "")
	var got []string
	for v := range h.Values("A") {
		got = append(got, string(v))
	}
	if want := []string{"1", "3", ""}; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("Values(A): got %q, want %q", got, want)
	}
	for v := range h.Values("a") {
		if string(v) != "1" {
			t.Errorf("the first of Values(a): got %q, want 1", v)
		}
		break
	}
}

func TestHeadersSet(t *testing.T) {
	for _, c := range []struct {
		name       string
		before     dedup.Headers
		set        string
		want, kept dedup.Headers
	}{
		{"none", nil, "a", headers("a", "new"), nil},
		{"another", headers("b", "1"), "a", headers("b", "1", "a", "new"), headers("b", "1")},
		{"one, written differently", headers("b", "1", "A", "2", "c", "3"), "a",
			headers("b", "1", "A", "new", "c", "3"), headers("b", "1", "A", "2", "c", "3")},
		{"several", headers("a", "1", "b", "2", "A", "3", "a", "4"), "a",
			headers("a", "new", "b", "2"), headers("a", "1", "b", "2", "A", "3", "a", "4")},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.before
			h.Set(c.set, []byte("new"))
			if fmt.Sprintf("%q", h) != fmt.Sprintf("%q", c.want) {
				t.Errorf("got %q, want %q", h, c.want)
			}
			if fmt.Sprintf("%q", c.before) != fmt.Sprintf("%q", c.kept) {
				t.Errorf("headers shared with another message: got %q, want them as they were, %q", c.before, c.kept)
			}
		})
	}
}

// TestHeadersSetSharesNothing: two copies of one slice with room to spare do not
// write over each other's headers.
func TestHeadersSetSharesNothing(t *testing.T) {
	shared := make(dedup.Headers, 0, 8)
	a, b := shared, shared
	a.Set("a", []byte("1"))
	b.Set("b", []byte("2"))
	if v, found := a.Get("a"); !found || string(v) != "1" {
		t.Errorf("Get(a) after another copy was set: got %q, %t, want 1", v, found)
	}
}

func TestSetKey(t *testing.T) {
	var h dedup.Headers
	h.SetKey("order-1")
	h.SetKey("order-2")
	key, err := dedup.HeaderKey()(&dedup.Message{Headers: h})
	if err != nil || key != "order-2" {
		t.Errorf("HeaderKey after SetKey twice: got %q, %v, want order-2", key, err)
	}
	if len(h) != 1 || h[0].Key != "Idempotency-Key" {
		t.Errorf("headers: got %q, want one Idempotency-Key", h)
	}
}

func TestPositionString(t *testing.T) {
	p := dedup.Position{Source: "orders", Partition: 3, Offset: 42}
	if got, want := p.String(), "orders/3@42"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
