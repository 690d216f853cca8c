// Package owner reads and writes what a commit says besides the offset, in its
// metadata: with which store the partition was consumed. So a partition that comes to
// a member with another store is noticed, and messages that its store cannot know are
// flagged.
//
// The metadata is one line, the same for every transport on Kafka, so that a group can
// move from one to the other:
//
//	oncequeue/1 since=1764512345678 store=5f1c09 parts=12
//
// The first word names the format. Fields follow, separated by spaces, in any order. A
// reader ignores the fields that it does not know.
package owner

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Owner is who consumed a partition.
type Owner struct {
	// Store is the identity of the store; empty: nobody said.
	Store string
	// Since is the time before which another store may have recorded messages that
	// Store does not know; zero: there was no other.
	Since time.Time
	// Parts is how many partitions the topic had when the group began with it; 0:
	// not known. A partition beyond was added later.
	Parts int
}

// format names the format and its version.
const format = "oncequeue/1"

var escape = strings.NewReplacer("%", "%25", " ", "%20", "\t", "%09", "\n", "%0A", "\r", "%0D")

// String returns the metadata.
func (o Owner) String() string {
	var ms int64
	if !o.Since.IsZero() {
		ms = o.Since.UnixMilli()
	}
	s := format + " since=" + strconv.FormatInt(ms, 10) + " store=" + escape.Replace(o.Store)
	if o.Parts > 0 {
		s += " parts=" + strconv.Itoa(o.Parts)
	}
	return s
}

// Parse reads the metadata of a commit. The metadata of another kind of consumer, and
// one that is damaged, is that of nobody.
func Parse(metadata string) (o Owner) {
	words := strings.Split(metadata, " ")
	if words[0] != format {
		return Owner{}
	}
	since := false
	for _, field := range words[1:] {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "since":
			ms, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return Owner{}
			}
			if since = true; ms > 0 {
				o.Since = time.UnixMilli(ms)
			}
		case "store":
			store, err := url.PathUnescape(value)
			if err != nil {
				return Owner{}
			}
			o.Store = store
		case "parts":
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				o.Parts = n
			}
		}
	}
	if !since || o.Store == "" {
		return Owner{}
	}
	return o
}

// Next returns who owns the partition from now on, with the store that vouches. A
// commit that does not say with which store, be it by another kind of consumer or by
// an operator who set the offset, may hide another one. To a shared store that does
// not matter: its memory is that of all who use it.
func (o Owner) Next(committed bool, v driver.Vouch, now time.Time) (next Owner, foreign bool) {
	switch {
	case o.Store == v.ID:
	case o.Store != "", committed && !v.Shared:
		o.Since, foreign = now.Truncate(time.Millisecond), true
	}
	o.Store = v.ID
	return o, foreign
}
