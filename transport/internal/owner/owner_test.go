package owner

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

var since = time.UnixMilli(1_700_000_000_123)

func TestMetadata(t *testing.T) {
	for metadata, want := range map[string]Owner{
		"oncequeue/1 since=0 store=a":                      {Store: "a"},
		"oncequeue/1 since=1700000000123 store=a parts=12": {Store: "a", Since: since, Parts: 12},
		"oncequeue/1 store=a later=x since=0 parts=3 more": {Store: "a", Parts: 3}, // fields of a later version
		"oncequeue/1 since=0 store=a%20b%25 parts=x":       {Store: "a b%"},
		"":                              {},
		"consumed by x":                 {},
		"oncequeue/1":                   {},
		"oncequeue/1 since=1":           {},
		"oncequeue/1 store=a":           {},
		"oncequeue/1 since=0 store=":    {},
		"oncequeue/1 since=x store=a":   {},
		"oncequeue/1 since=0 store=%zz": {},
		"oncequeue/2 since=1 store=a":   {},
	} {
		if got := Parse(metadata); got.Store != want.Store || !got.Since.Equal(want.Since) || got.Parts != want.Parts {
			t.Errorf("%q: got %+v, want %+v", metadata, got, want)
		}
	}
}

func TestMetadataComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Owner{Store: rapid.StringN(1, 40, -1).Draw(t, "store"), Parts: rapid.IntRange(0, 9999).Draw(t, "parts")}
		if ms := rapid.Int64Range(0, 1<<45).Draw(t, "since"); ms > 0 {
			o.Since = time.UnixMilli(ms)
		}
		if got := Parse(o.String()); got != o {
			t.Errorf("%q: got %+v, want %+v", o.String(), got, o)
		}
	})
}

func TestNext(t *testing.T) {
	now := since.Add(time.Hour)
	for _, x := range []struct {
		was       Owner
		committed bool
		shared    bool
		want      Owner
		foreign   bool
	}{
		{was: Owner{}, want: Owner{Store: "b"}}, // the group is new
		{was: Owner{}, committed: true, shared: true, want: Owner{Store: "b"}},
		{was: Owner{}, committed: true, want: Owner{Store: "b", Since: now}, foreign: true},
		{was: Owner{Store: "b", Parts: 3}, committed: true, want: Owner{Store: "b", Parts: 3}},
		{was: Owner{Store: "b", Since: since}, committed: true, want: Owner{Store: "b", Since: since}},
		{was: Owner{Store: "a", Since: since, Parts: 3}, committed: true, want: Owner{Store: "b", Since: now, Parts: 3}, foreign: true},
		{was: Owner{Store: "a"}, committed: true, shared: true, want: Owner{Store: "b", Since: now}, foreign: true},
	} {
		got, foreign := x.was.Next(x.committed, driver.Vouch{ID: "b", Shared: x.shared}, now)
		if got != x.want || foreign != x.foreign {
			t.Errorf("%+v: got %v, foreign %v", x, got, foreign)
		}
	}
}
