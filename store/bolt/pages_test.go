package boltstore

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What would send bbolt round in circles, or after more memory than there is, is
// found before bbolt has it: Open would not come back.
func TestDamagedPages(t *testing.T) {
	o := newOriginal(t)
	name := fileName(3)
	size := os.Getpagesize()
	for _, tt := range []struct {
		name   string
		kind   uint16
		damage func(id int, p []byte)
		want   string
	}{
		{"a page below itself", branchPage, func(id int, p []byte) { binary.NativeEndian.PutUint64(p[24:], uint64(id)) }, "two ways lead to it"},
		{"a page far below", branchPage, func(_ int, p []byte) { binary.NativeEndian.PutUint64(p[24:], 1<<40) }, "outside the file"},
		{"another page", leafPage, func(_ int, p []byte) { p[0]++ }, "another page"},
		{"a long page", leafPage, func(_ int, p []byte) { p[15] = 0x40 }, "longer than the file"},
		{"a page of a kind", leafPage, func(_ int, p []byte) { p[8] = 0x10 }, "unknown kind"},
		{"many elements", leafPage, func(_ int, p []byte) { p[11] = 0xff }, "more elements than fit"},
		{"no elements", branchPage, func(_ int, p []byte) { p[10], p[11] = 0, 0 }, "no elements"},
		{"no records", leafPage, func(_ int, p []byte) {
			if p[16] != bucketElement {
				p[10], p[11] = 0, 0
			}
		}, "no elements"},
		{"an empty key", branchPage, func(_ int, p []byte) { p[20] = 0 }, "a key is empty"},
		{"an element outside", leafPage, func(_ int, p []byte) { p[23] = 0x40 }, "outside of it"},
		{"a bucket among records", leafPage, func(_ int, p []byte) { p[16] = bucketElement }, "a bucket that is none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &corruption{original: o, t: t, what: tt.name, dir: filepath.Join(t.TempDir(), "store")}
			c.fill()
			c.path = filepath.Join(c.dir, name)
			data := slices.Clone(o.files[name])
			for id := range len(data) / size { // all of them: some are out of use
				if p := data[id*size:]; binary.NativeEndian.Uint16(p[8:]) == tt.kind {
					tt.damage(id, p)
				}
			}
			c.write(data, len(data))
			s, err := Open(c.dir, &o.opts)
			if err == nil {
				closeStore(t, s)
				t.Fatal("Open: got no error")
			}
			c.wantDamage("Open", err)
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "offset") {
				t.Errorf("got error %q, want it to say %q, and the offset", err, tt.want)
			}
		})
	}
}

// A store whose newest file is damaged while it is open says so, and closes.
func TestDamagedWhileOpen(t *testing.T) {
	o := newOriginal(t)
	for what, damage := range map[string]func([]byte) []byte{
		"no pages":     func(data []byte) []byte { clear(data[2*os.Getpagesize():]); return data },
		"no metas":     func(data []byte) []byte { return data[:100] },
		"cut off":      func(data []byte) []byte { return data[:3*os.Getpagesize()] },
		"nothing left": func([]byte) []byte { return nil },
	} {
		c := &corruption{original: o, t: t, what: what, dir: filepath.Join(t.TempDir(), "store")}
		c.fill()
		s, err := Open(c.dir, &o.opts)
		if err != nil {
			t.Fatal(err)
		}
		c.path = filepath.Join(c.dir, fileName(3))
		data := damage(slices.Clone(o.files[fileName(3)]))
		c.write(data, len(data))
		want := maps.Clone(o.want)
		if failed := c.lookUp(s, want) + c.claim(s, want); failed == 0 {
			t.Errorf("%s: every answer was right", what)
		}
		if err := s.Close(); err != nil {
			c.wantDamage("Close", err)
		}
	}
}
