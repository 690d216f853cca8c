package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
)

// Everything a user can get wrong is one line that names the value, the cause
// and the remedy; nothing is written.
func TestBadInput(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"orders": 1, "orders.once": 1}, nil)
	at := "kafka://" + k.Addrs()[0] + "/"
	from, to := at+"orders?group=g", at+"orders.once"
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(dir, "used")
	s, err := boltstore.Open(used, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fresh := filepath.Join(dir, "fresh")
	corrupt := filepath.Join(dir, "corrupt")
	if err := os.Mkdir(corrupt, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(corrupt, "log-000001.db"), bytes.Repeat([]byte("garbage "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	complete := func(more ...string) []string {
		return append([]string{"run", "--from", from, "--to", to, "--store", "bolt:" + fresh, "--listen", "127.0.0.1:0"}, more...)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"no command":         {[]string{}, exitUsage, []string{"no command"}},
		"unknown command":    {[]string{"walk"}, exitUsage, []string{`"walk"`}},
		"unknown flag":       {complete("--tll", "1h"), exitUsage, []string{"--tll", "--help"}},
		"stray argument":     {complete("now"), exitUsage, []string{`"now"`}},
		"missing flag":       {[]string{"run", "--from", from, "--to", to}, exitUsage, []string{"--store is missing"}},
		"no URL":             {complete("--from", "orders"), exitUsage, []string{"--from", `"orders"`, "kafka://HOST:PORT"}},
		"unknown scheme":     {complete("--to", "amqp://h:1/q"), exitUsage, []string{"--to", `"amqp"`, "kafka://"}},
		"no port":            {complete("--to", "kafka://broker/t"), exitUsage, []string{"--to", `"broker"`, "HOST:PORT"}},
		"no group":           {complete("--from", to), exitUsage, []string{"--from", "?group=NAME"}},
		"unknown parameter":  {complete("--from", from+"&sesion=6s"), exitUsage, []string{`"sesion"`, "session"}},
		"bad session":        {complete("--from", from+"&session=6"), exitUsage, []string{"session=6", "session=30s"}},
		"bad duration":       {complete("--ttl", "2d"), exitUsage, []string{"--ttl", `"2d"`}},
		"bad key":            {complete("--key", "heder:X"), exitUsage, []string{"--key", `"heder:X"`, "header:NAME"}},
		"bad store":          {complete("--store", "redis"), exitUsage, []string{"--store", `"redis"`, "bolt:DIR"}},
		"bad time":           {complete("--vouch-from", "yesterday"), exitUsage, []string{"--vouch-from", `"yesterday"`}},
		"password in a URL":  {complete("--to", "kafka://user:hunter2@h:1/t"), exitUsage, []string{"--to", "password"}},
		"TTL below lease":    {complete("--ttl", "10s"), exitUsage, []string{"--ttl 10s", "--lease 30s"}},
		"no TTL":             {complete("--ttl", "0"), exitUsage, []string{"--ttl 0s"}},
		"lease too short":    {complete("--lease", "1ms"), exitUsage, []string{"1ms"}},
		"time to come":       {complete("--vouch-from", "2999-01-02T15:04:05Z"), exitUsage, []string{"--vouch-from", "2999"}},
		"letters to source":  {complete("--dead-letter", at+"orders"), exitUsage, []string{"both source and dead letters"}},
		"letters to target":  {complete("--dead-letter", to), exitUsage, []string{"both target and dead letters"}},
		"session too short":  {complete("--from", from+"&session=50ms", "--store", "mem:"), exitFailure, []string{"SessionTimeout of 50ms", "group.min.session.timeout.ms"}},
		"bad listen":         {complete("--listen", "9464"), exitUsage, []string{"--listen", `"9464"`, "HOST:PORT"}},
		"port in use":        {complete("--listen", taken.Addr().String()), exitFailure, []string{"--listen", taken.Addr().String(), "in use"}},
		"unreachable broker": {complete("--from", "kafka://127.0.0.1:1/orders?group=g"), exitFailure, []string{"127.0.0.1:1", "refused"}},
		"unknown source":     {complete("--from", at+"oders?group=g"), exitFailure, []string{"oders", "does not exist"}},
		"unknown target":     {complete("--to", at+"nowhere"), exitFailure, []string{"nowhere", "does not exist"}},
		"unknown letters":    {complete("--dead-letter", at+"nowhere"), exitFailure, []string{"dead letters", "nowhere"}},
		"reads its output":   {complete("--to", at+"orders"), exitUsage, []string{"both source and target"}},
		"directory in use":   {complete("--store", "bolt:"+used), exitFailure, []string{used, "in use"}},
		"unwritable place":   {complete("--store", "bolt:/proc/oncequeue"), exitFailure, []string{"/proc/oncequeue", "choose another path"}},
		"corrupt file":       {complete("--store", "bolt:"+corrupt), exitFailure, []string{"log-000001.db"}},
		"not a directory":    {complete("--store", "bolt:"+file), exitFailure, []string{file, "director"}},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // what is accepted by mistake must end too
			defer cancel()
			code := run(ctx, c.args, &stdout, &stderr)
			got := stderr.String()
			if code != c.code || lines(got) != 1 || stdout.Len() > 0 {
				t.Errorf("got exit %d, stdout %q, stderr %q; want exit %d and one line on stderr", code, stdout.String(), got, c.code)
			}
			for _, part := range c.says {
				if !strings.Contains(got, part) {
					t.Errorf("got %q, want it to name %q", got, part)
				}
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("a password shows in %q", got)
			}
			if _, err := os.Stat(fresh); !os.IsNotExist(err) {
				t.Errorf("the store was created: %v", err)
			}
		})
	}
}

// lines counts the lines of s that are not of the log.
func lines(s string) (n int) {
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "time=") {
			n++
		}
	}
	return n
}

// A file says what flags say; what is typed counts; its errors name line and
// column, all of them at once.
func TestConfigFile(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"orders": 1, "orders.once": 1}, nil)
	at := "kafka://" + k.Addrs()[0] + "/"
	good := "from: " + at + "orders?group=g\nto: " + at + "orders.once\nstore: 'mem:'\nlisten: ''\n"
	for name, c := range map[string]struct {
		text string
		args []string
		code int
		says []string
	}{
		"good":              {good + "ttl: 48h\n", nil, exitClean, []string{"ttl=48h", "relayed=0"}},
		"typed counts":      {good + "ttl: 48h\n", []string{"--ttl", "72h"}, exitClean, []string{"ttl=72h"}},
		"unknown and bad":   {good + "tll: 48h\nlease: long\n", nil, exitConfig, []string{"relay.yaml:5:1", `"tll"`, "ttl", "relay.yaml:6:8", `"long"`}},
		"twice":             {good + "ttl: 48h\nttl: 49h\n", nil, exitConfig, []string{"relay.yaml"}},
		"a list":            {"- from\n", nil, exitConfig, []string{"relay.yaml:1:1", "NAME: VALUE"}},
		"a list as a value": {good + "ttl: [1h]\n", nil, exitConfig, []string{"relay.yaml:5:6", "single value"}},
		"no YAML":           {"from: [", nil, exitConfig, []string{"relay.yaml"}},
		"empty":             {"", nil, exitConfig, []string{"relay.yaml", "empty"}},
		"something missing": {"from: " + at + "orders?group=g\n", nil, exitConfig, []string{"relay.yaml", "--to is missing"}},
		"no file":           {"", []string{"-c", "/nowhere/relay.yaml"}, exitConfig, []string{"/nowhere/relay.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "relay.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stderr := &output{line: "msg=beginning", then: cancel}
			code := run(ctx, append([]string{"run", "-c", file}, c.args...), io.Discard, stderr)
			got := stderr.String()
			if code != c.code || c.code != exitClean && lines(got) != 1 {
				t.Errorf("got exit %d, want %d: %s", code, c.code, got)
			}
			for _, part := range c.says {
				if !strings.Contains(got, part) {
					t.Errorf("got %q, want it to name %q", got, part)
				}
			}
		})
	}
}

func TestRunDrainsAndSaysWhatItDid(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"orders": 1, "orders.once": 1}, nil)
	at := "kafka://" + k.Addrs()[0] + "/"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr output
	exit := make(chan int, 1)
	go func() {
		exit <- run(ctx, []string{"run", "--from", at + "orders?group=g", "--to", at + "orders.once", "--store", "bolt:" + t.TempDir(), "--listen", ""}, io.Discard, &stderr)
	}()
	transporttest.Eventually(t, "the relay to hold its partition", func() bool {
		group := k.Cluster().GroupInfo("g")
		return group != nil && group.State == "Stable" && group.NumAssigned() == 1
	})
	cancel()
	code := <-exit
	if code != exitClean || !strings.Contains(stderr.String(), "relayed=0") {
		t.Errorf("got exit %d, stderr %s", code, stderr.String())
	}
}

func TestListen(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"orders": 1, "orders.once": 1}, nil)
	at := "kafka://" + k.Addrs()[0] + "/"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr output
	exit := make(chan int, 1)
	go func() {
		exit <- run(ctx, []string{"run", "--from", at + "orders?group=g", "--to", at + "orders.once", "--store", "mem:", "--listen", "127.0.0.1:0"}, io.Discard, &stderr)
	}()
	var addr string
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(2 * time.Minute); addr == ""; {
		select {
		case <-tick.C:
			addr = stderr.find(regexp.MustCompile(`listen=(\S+)`))
		case <-deadline:
			t.Fatal("the log does not name the address")
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	res, err := client.Get("http://" + addr + "/statusz")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Version string
		Flags   map[string]string
	}
	if err := errors.Join(json.NewDecoder(res.Body).Decode(&status), res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if status.Version != version() || status.Flags["to"] != at+"orders.once" || status.Flags["ttl"] != "24h0m0s" || status.Flags["scope"] != "g > kafka:orders.once" {
		t.Errorf("got %+v", status)
	}
	cancel()
	if code := <-exit; code != exitClean {
		t.Errorf("got exit %d", code)
	}
	if _, err := client.Get("http://" + addr + "/statusz"); err == nil {
		t.Error("it listens after its end")
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--help"}, {"run", "--help"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitClean || stdout.Len() == 0 || stderr.Len() > 0 {
			t.Errorf("%v: got exit %d, stdout %q, stderr %q", args, code, stdout.String(), stderr.String())
		}
	}
}

// FuzzFlags: whatever is typed is taken, or refused in one line.
func FuzzFlags(f *testing.F) {
	f.Add("kafka://h:1/t?group=g", "kafka://h:1/u", "bolt:/d", "header:X,json:a.b", "", "")
	f.Add("kafka://[::1]:9092,h:2/t?group=g&session=6s", "kafka://h:1/{topic}.once", "mem:", "payload", "kafka://h:1/d", "2026-01-02T15:04:05Z")
	f.Fuzz(func(t *testing.T, from, to, store, key, letters, vouch string) {
		c, err := (&flags{from: from, to: to, store: store, key: key, deadLetter: letters, vouchFrom: vouch}).config()
		switch {
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("%q has several lines", err)
		case err == nil && (len(c.From.Hosts) == 0 || c.From.Topic == "" || c.From.Group == "" || c.To.Topic == "" || c.Key == nil):
			t.Errorf("accepted %+v", c)
		}
	})
}
