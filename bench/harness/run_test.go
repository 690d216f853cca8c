package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"testing"
)

// testSuites has a server; the test binary is it when it is started so.
var testSuites = []Suite{{Name: "served", Servers: map[string]Server{
	"greeter": func(ctx context.Context, ready func(string)) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		defer stop()
		ready(l.Addr().String())
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			_, err = io.WriteString(c, "hello")
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
		}
	},
}}}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "--serve" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		if err := RunServer(ctx, testSuites, os.Args[2]); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func TestServer(t *testing.T) {
	r := &Run{suite: &testSuites[0]}
	p, err := r.Serve("greeter")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.Address)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	if string(got) != "hello" {
		t.Errorf("the server said %q, want hello", got)
	}
	if p.PID == os.Getpid() {
		t.Error("the server is no process of its own")
	}
	for _, fn := range r.cleanups {
		if err := fn(); err != nil {
			t.Errorf("end of the server: %v", err)
		}
	}
	if _, err := net.Dial("tcp", p.Address); err == nil {
		t.Error("the server is there after the end of the suite")
	}
}

// diskDir returns a directory that is on a disk, unlike, on some machines, that
// for temporary files.
func diskDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "smoke-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestTurns(t *testing.T) {
	dir := diskDir(t)
	var order []string
	contender := func(name string, share float64) Contender {
		return Contender{Name: name, Share: share, Round: func(_ context.Context, r *Round) error {
			order = append(order, name)
			r.Start()
			r.Stop()
			r.Count("trips", 2*float64(r.Messages))
			return nil
		}}
	}
	suite := Suite{Name: "s", Messages: 100, Declare: func(_ context.Context, r *Run) error {
		r.Contend(contender("a", 0))
		r.Contend(contender("b", 0.5))
		r.Measure("m", func(_ context.Context, m *Measure) error {
			m.Set("x", 1)
			m.Set("x", 3)
			return nil
		})
		r.Figure(Figure{What: "trips", Bar: 2, From: Median("trips", "a")})
		r.Figure(Figure{What: "x", Bar: 3, From: Measured("x")})
		r.Cleanup(func() error { order = append(order, "first"); return nil })
		r.Cleanup(func() error { order = append(order, "last"); return nil })
		return nil
	}}
	report, err := RunAll(t.Context(), []Suite{suite}, Options{Rounds: 2, Dir: dir, Progress: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(order, " "), "a b a b a b last first"; got != want {
		t.Errorf("order: got %q, want %q", got, want)
	}
	s := report.Suites[0]
	if got := s.Contenders[1].Messages; got != 50 {
		t.Errorf("messages of b: got %d, want half of 100", got)
	}
	for i, want := range []string{"met", "NOT met"} {
		if got := s.Figures[i].Verdict; got != want {
			t.Errorf("figure %s: got %q, want %q", s.Figures[i].What, got, want)
		}
	}
	var out bytes.Buffer
	report.Print(&out)
	for _, want := range []string{"| trips | 2 [2-2] | ≥ 2 |  | met     |", "| x     | 2 [1-3] | ≥ 3 |  | NOT met |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no line %q:\n%s", want, out.String())
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSkip(t *testing.T) {
	missing := Suite{Name: "s", Messages: 1, Declare: func(context.Context, *Run) error { return Skip("no server: install it") }}
	report, err := RunAll(t.Context(), []Suite{missing}, Options{Rounds: 1, Dir: diskDir(t), Progress: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Skipped(); !slices.Equal(got, []string{"s"}) {
		t.Errorf("skipped: got %q, want s", got)
	}
}

func TestRunFails(t *testing.T) {
	round := func(_ context.Context, r *Round) error {
		r.Start()
		r.Stop()
		return nil
	}
	for name, declare := range map[string]func(r *Run){
		"a round that fails": func(r *Run) {
			r.Contend(Contender{Name: "a", Round: func(context.Context, *Round) error { return errors.New("lost a message") }})
		},
		"a round that starts no clock": func(r *Run) {
			r.Contend(Contender{Name: "a", Round: func(context.Context, *Round) error { return nil }})
		},
		"two of a name": func(r *Run) {
			r.Contend(Contender{Name: "a", Round: round})
			r.Contend(Contender{Name: "a", Round: round})
		},
		"a figure of nobody": func(r *Run) {
			r.Contend(Contender{Name: "a", Round: round})
			r.Figure(Figure{From: Ratio("a", "b")})
		},
	} {
		suite := Suite{Name: "s", Messages: 1, Declare: func(_ context.Context, r *Run) error { declare(r); return nil }}
		if _, err := RunAll(t.Context(), []Suite{suite}, Options{Rounds: 1, Dir: diskDir(t), Progress: io.Discard}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
