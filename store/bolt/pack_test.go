package boltstore

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// sealed is an entry of n bytes under seq.
func sealed(seq uint64, n int) []byte {
	e := make([]byte, n-crcLen)
	for i := range e {
		e[i] = byte(i) ^ byte(seq)
	}
	e[0], e[1] = version, byte(kindDone)
	return seal(e, 0, seq)
}

// packOf makes values of entries with these lengths, from the sequence number 1 on.
func packOf(lengths ...int) (p packer, all [][]byte) {
	p.next = 1
	for _, n := range lengths {
		e := sealed(p.next, n)
		all = append(all, e)
		p.add(e)
	}
	p.finish()
	return p, all
}

func TestPacks(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		lengths := make([]int, rng.IntN(100))
		for i := range lengths {
			lengths[i] = minEntry + rng.IntN(100)
			if rng.IntN(10) == 0 {
				lengths[i] += rng.IntN(600)
			}
		}
		p, all := packOf(lengths...)
		seq := uint64(1)
		for _, v := range p.values {
			if v.seq != seq {
				t.Fatalf("seed %d: got a value under %d, want %d", seed, v.seq, seq)
			}
			if err := checkPack(v.bytes, v.seq); err != nil {
				t.Fatalf("seed %d: value under %d: %v", seed, v.seq, err)
			}
			for at, e := range entries(v.bytes) {
				if want := all[seq-1]; !bytes.Equal(e, want) || !bytes.Equal(entryAt(v.bytes, seq-v.seq), want) || !bytes.Equal(v.bytes[at:at+len(e)], want) {
					t.Fatalf("seed %d: got entry %d as %x at %d, want %x", seed, seq, e, at, want)
				}
				seq++
			}
			if entryAt(v.bytes, seq-v.seq) != nil {
				t.Errorf("seed %d: there is something behind the last entry of the value under %d", seed, v.seq)
			}
			if packed(v.bytes) && len(v.bytes) > maxPack {
				t.Errorf("seed %d: got a pack of %d bytes, want at most %d", seed, len(v.bytes), maxPack)
			}
		}
		if int(seq-1) != len(all) {
			t.Errorf("seed %d: got %d entries of %d", seed, seq-1, len(all))
		}
	}
}

func TestWhatIsPacked(t *testing.T) {
	for _, tt := range []struct {
		name    string
		lengths []int
		want    []uint64 // what the values stand under
	}{
		{"nothing", nil, nil},
		{"alone", []int{70}, []uint64{1}},
		{"as many as fit", []int{69, 69, 69, 69, 69, 69, 69, 69}, []uint64{1, 7}},
		{"long ones alone", []int{70, maxPacked + 1, 70, 70}, []uint64{1, 2, 3}},
		{"the longest in a pack", []int{70, maxPacked}, []uint64{1}},
	} {
		p, _ := packOf(tt.lengths...)
		var got []uint64
		for _, v := range p.values {
			got = append(got, v.seq)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got values under %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever becomes of a pack, what is read of it is an entry that was written, in
// its place, or known to be damaged.
func TestDamagedPack(t *testing.T) {
	p, all := packOf(70, 20, 90, 6, 70, 70)
	if len(p.values) != 1 {
		t.Fatalf("got %d values, want one", len(p.values))
	}
	whole := p.values[0].bytes
	for bit := range len(whole) * 8 {
		v := bytes.Clone(whole)
		v[bit/8] ^= 1 << (bit % 8)
		if checkPack(v, 1) == nil && packed(v) {
			t.Errorf("bit %d flipped: the pack passes for whole", bit)
		}
		damagedPackReads(t, v, all)
	}
	for n := range len(whole) {
		damagedPackReads(t, whole[:n:n], all)
	}
}

func damagedPackReads(t *testing.T, v []byte, all [][]byte) {
	t.Helper()
	i := 0
	for _, e := range entries(v) {
		if _, _, err := unseal(e, uint64(i+1)); err == nil && (i >= len(all) || !bytes.Equal(e, all[i])) {
			t.Errorf("%x: got entry %d as %x, which nobody wrote", v, i+1, e)
		}
		i++
	}
}
