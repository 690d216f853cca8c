package harness

import "testing"

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3, 1}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3, 3}},
		{[]float64{4, 1, 2, 3}, Spread{2.5, 1, 4, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("spreadOf(%v): got %+v, want %+v", c.values, got, c.want)
		}
	}
}

// TestRatio pairs the rounds: a machine that slows down for a while slows both.
func TestRatio(t *testing.T) {
	r := make(results)
	for i, v := range []float64{20, 2, 40} {
		r.add("a", Rate, v)
		r.add("b", Rate, []float64{10, 1, 10}[i])
	}
	if got, want := r.spread(Ratio("a", "b")), (Spread{2, 2, 4, 3}); got != want {
		t.Errorf("ratio: got %+v, want %+v", got, want)
	}
	if got := r.spread(Ratio("a", "c")); got.N != 0 {
		t.Errorf("ratio to nothing: got %+v, want no values", got)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		s    Spread
		want string
	}{
		{Figure{Bar: 30, Goal: 40}, Spread{Median: 29.9, N: 7}, "NOT met"},
		{Figure{Bar: 30, Goal: 40}, Spread{Median: 30, N: 7}, "met"},
		{Figure{Bar: 30, Goal: 40}, Spread{Median: 41, N: 7}, "met, goal met"},
		{Figure{Bar: 30}, Spread{Median: 41, N: 7}, "met"},
		{Figure{Bar: 14, AtMost: true}, Spread{Median: 14.1, N: 7}, "NOT met"},
		{Figure{Bar: 300, Goal: 260, AtMost: true}, Spread{Median: 260, N: 7}, "met, goal met"},
		{Figure{Bar: 30}, Spread{}, "not measured"},
		{Figure{}, Spread{Median: 1, N: 1}, ""},
	} {
		if got := c.f.verdict(c.s); got != c.want {
			t.Errorf("%+v, %+v: got %q, want %q", c.f, c.s, got, c.want)
		}
	}
}
