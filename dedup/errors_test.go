package dedup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

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
