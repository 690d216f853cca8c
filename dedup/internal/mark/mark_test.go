package mark

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	base := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		err  error
		want Marks
	}{
		{"nil", nil, Marks{}},
		{"a plain error", base, Marks{}},
		{"permanent", Permanent(base), Marks{Permanent: true}},
		{"transient", Transient(base), Marks{Transient: true}},
		{"maybe done", MaybeDone(base), Marks{MaybeDone: true}},
		{"retry after", RetryAfter(base, time.Minute), Marks{After: time.Minute, HasAfter: true}},
		{"retry at once", RetryAfter(base, 0), Marks{HasAfter: true}},
		{"retry in the past", RetryAfter(base, -time.Minute), Marks{HasAfter: true}},
		{"two marks", RetryAfter(Transient(base), time.Minute), Marks{Transient: true, After: time.Minute, HasAfter: true}},
		{"three marks", MaybeDone(RetryAfter(Permanent(base), time.Second)), Marks{Permanent: true, MaybeDone: true, After: time.Second, HasAfter: true}},
		{"of two delays the outer", RetryAfter(RetryAfter(base, time.Minute), time.Second), Marks{After: time.Second, HasAfter: true}},
		{"an outer delay of zero counts", RetryAfter(RetryAfter(base, time.Minute), 0), Marks{HasAfter: true}},
		{"wrapped", fmt.Errorf("order 7: %w", Transient(fmt.Errorf("dial: %w", MaybeDone(base)))), Marks{Transient: true, MaybeDone: true}},
		{"joined", errors.Join(base, Transient(base), MaybeDone(base)), Marks{Transient: true, MaybeDone: true}},
		{"two wrapped at once", fmt.Errorf("%w, then %w", RetryAfter(base, time.Second), RetryAfter(Permanent(base), time.Minute)),
			Marks{Permanent: true, After: time.Second, HasAfter: true}},
		{"hidden by text", errors.New(Permanent(base).Error()), Marks{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Of(c.err)
			got.err = nil
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestMarksKeepTheError: a mark adds nothing to the text, and the wrapped error still
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
