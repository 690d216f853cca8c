package dedup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestSteering(t *testing.T) {
	base := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		err  error
		want steer
	}{
		{"nil", nil, steer{}},
		{"a plain error", base, steer{}},
		{"permanent", Permanent(base), steer{permanent: true}},
		{"transient", Transient(base), steer{transient: true}},
		{"maybe done", MaybeDone(base), steer{maybeDone: true}},
		{"retry after", RetryAfter(base, time.Minute), steer{after: time.Minute, hasAfter: true}},
		{"retry at once", RetryAfter(base, 0), steer{hasAfter: true}},
		{"retry in the past", RetryAfter(base, -time.Minute), steer{hasAfter: true}},
		{"two marks", RetryAfter(Transient(base), time.Minute), steer{transient: true, after: time.Minute, hasAfter: true}},
		{"three marks", MaybeDone(RetryAfter(Permanent(base), time.Second)), steer{permanent: true, maybeDone: true, after: time.Second, hasAfter: true}},
		{"of two delays the outer", RetryAfter(RetryAfter(base, time.Minute), time.Second), steer{after: time.Second, hasAfter: true}},
		{"an outer delay of zero counts", RetryAfter(RetryAfter(base, time.Minute), 0), steer{hasAfter: true}},
		{"wrapped", fmt.Errorf("order 7: %w", Transient(fmt.Errorf("dial: %w", MaybeDone(base)))), steer{transient: true, maybeDone: true}},
		{"joined", errors.Join(base, Transient(base), MaybeDone(base)), steer{transient: true, maybeDone: true}},
		{"two wrapped at once", fmt.Errorf("%w, then %w", RetryAfter(base, time.Second), RetryAfter(Permanent(base), time.Minute)),
			steer{permanent: true, after: time.Second, hasAfter: true}},
		{"hidden by text", errors.New(Permanent(base).Error()), steer{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := steering(c.err)
			got.err = nil
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if IsPermanent(c.err) != c.want.permanent {
				t.Errorf("IsPermanent: got %t, want %t", !c.want.permanent, c.want.permanent)
			}
		})
	}
}

// TestMarksKeepTheError: a mark adds nothing to the text, and what it wraps still
// matches.
func TestMarksKeepTheError(t *testing.T) {
	for name, mark := range map[string]func(error) error{
		"Permanent":  Permanent,
		"Transient":  Transient,
		"MaybeDone":  MaybeDone,
		"RetryAfter": func(err error) error { return RetryAfter(err, time.Second) },
	} {
		if err := mark(nil); err != nil {
			t.Errorf("%s(nil): got %v, want nil", name, err)
		}
		err := mark(fmt.Errorf("read: %w", io.ErrUnexpectedEOF))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: does not match what it wraps", name)
		}
		if got, want := err.Error(), "read: unexpected EOF"; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestPanicError(t *testing.T) {
	value := fmt.Errorf("index: %w", context.Canceled)
	for _, c := range []struct {
		name  string
		value any
		text  string
		is    []error
		not   []error
	}{
		{"text", "odd", "panic: odd", []error{ErrPanic}, []error{context.Canceled}},
		{"number", 7, "panic: 7", []error{ErrPanic}, nil},
		{"error", value, "panic: index: context canceled", []error{ErrPanic, context.Canceled, value}, []error{io.EOF}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := panicError(c.value)
			if err.Error() != c.text {
				t.Errorf("got %q, want %q", err, c.text)
			}
			for _, is := range c.is {
				if !errors.Is(err, is) {
					t.Errorf("does not match %v", is)
				}
			}
			for _, not := range c.not {
				if errors.Is(err, not) {
					t.Errorf("matches %v", not)
				}
			}
			var p *PanicError
			if !errors.As(err, &p) || !strings.Contains(string(p.Stack), "TestPanicError") {
				t.Errorf("got %T, want a PanicError with the stack of the panic", err)
			}
		})
	}
}

func TestPanicOfAKeyFunctionHasItsStack(t *testing.T) {
	_, err := callKey(func(*Message) (Key, error) { return oddKey() }, &Message{})
	var p *PanicError
	if !errors.As(err, &p) || !strings.Contains(string(p.Stack), "oddKey") {
		t.Errorf("got %v, want a PanicError whose stack names the function", err)
	}
}

func oddKey() (Key, error) { panic("odd") }
