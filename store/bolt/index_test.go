package boltstore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestIndex drives an index and a map alike.
func TestIndex(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var x index
		model := make(map[uint64][]uint64) // hash -> sequence numbers
		n, next := 0, uint64(0)
		// Few hashes, and such as begin to look in the same slots.
		hashes := rapid.SliceOfN(rapid.Uint64Range(0, 40), 1, 12).Draw(t, "hashes")
		draw := func(t *rapid.T) (hash, seq uint64) {
			hash = rapid.SampledFrom(hashes).Draw(t, "hash")
			if seqs := model[hash]; len(seqs) > 0 && rapid.IntRange(0, 9).Draw(t, "known") > 0 {
				return hash, rapid.SampledFrom(seqs).Draw(t, "seq")
			}
			return hash, rapid.Uint64Range(0, next+1).Draw(t, "any seq")
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				hash := rapid.SampledFrom(hashes).Draw(t, "hash")
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					next++
					n++
					if x.put(hash, 0, next) {
						t.Fatalf("put of a new entry: got true")
					}
					model[hash] = append(model[hash], next)
				}
			},
			"move": func(t *rapid.T) {
				hash, prev := draw(t)
				next++
				i := slices.Index(model[hash], prev)
				if got := x.put(hash, prev, next); got != (i >= 0) {
					t.Fatalf("put(%d, %d, %d): got %t, want %t", hash, prev, next, got, i >= 0)
				}
				if i >= 0 {
					model[hash] = slices.Delete(model[hash], i, i+1)
				} else {
					n++
				}
				model[hash] = append(model[hash], next)
			},
			"remove": func(t *rapid.T) {
				hash, seq := draw(t)
				i := slices.Index(model[hash], seq)
				if got := x.remove(hash, seq); got != (i >= 0) {
					t.Fatalf("remove(%d, %d): got %t, want %t", hash, seq, got, i >= 0)
				}
				if i >= 0 {
					model[hash] = slices.Delete(model[hash], i, i+1)
					n--
				}
			},
			"": func(t *rapid.T) {
				if x.n != n {
					t.Fatalf("entries: got %d, want %d", x.n, n)
				}
				for _, hash := range hashes {
					want := slices.Clone(model[hash])
					slices.Sort(want)
					slices.Reverse(want)
					if got := x.find(nil, hash); !slices.Equal(got, want) {
						t.Fatalf("find(%d): got %v, want %v", hash, got, want)
					}
					for _, seq := range want {
						if !x.has(hash, seq) {
							t.Fatalf("has(%d, %d): got false", hash, seq)
						}
					}
				}
			},
		})
	})
}

// An index of n entries takes at most 32 bytes for each, on average over growth,
// and gives the room back.
func TestIndexMemory(t *testing.T) {
	var x index
	rng := rand.New(rand.NewPCG(1, 2))
	type at struct{ hash, seq uint64 }
	var all []at
	perEntry, samples := 0.0, 0
	const most = 1 << 19
	for x.n < most {
		e := at{rng.Uint64(), uint64(x.n + 1)}
		x.put(e.hash, 0, e.seq)
		all = append(all, e)
		if x.n >= most/8 && x.n%1000 == 0 {
			perEntry += float64(x.bytes()) / float64(x.n)
			samples++
		}
	}
	if got := perEntry / float64(samples); got > 32 {
		t.Errorf("got %.1f bytes for an entry, want at most 32", got)
	}
	full := x.bytes()
	for _, e := range all[most/32:] {
		x.remove(e.hash, e.seq)
	}
	if got := x.bytes(); got > full/4 {
		t.Errorf("with a 32th of the entries left: got %d bytes, want at most a quarter of %d", got, full)
	}
	for _, e := range all[:most/32] {
		if !x.has(e.hash, e.seq) {
			t.Fatalf("an entry is gone")
		}
	}
}

func (x *index) bytes() (n int) {
	for i := range x.shards {
		n += 16 * len(x.shards[i].slots)
	}
	return n
}

func BenchmarkIndexPut(b *testing.B) {
	var x index
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range b.N {
		x.put(rng.Uint64(), 0, uint64(i+1))
	}
}
