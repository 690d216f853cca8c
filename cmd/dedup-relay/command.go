package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/internal/relay"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	exitClean   = 0
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 78 // EX_CONFIG of sysexits.h
)

// failure is an error of the work itself; every other one is about usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// misconfigured is an error in a configuration file.
type misconfigured struct{ error }

func (m misconfigured) Unwrap() error { return m.error }

// run is the whole command: it returns the exit code. An error is one line on
// stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command(stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitClean
	}
	text, code := strings.ReplaceAll(err.Error(), "\n", "; "), exitFailure
	switch {
	case errors.As(err, new(failure)):
	case errors.As(err, new(misconfigured)):
		code = exitConfig
	default:
		text, code = text+"; see dedup-relay run --help", exitUsage
	}
	fmt.Fprintln(stderr, "dedup-relay: "+text)
	return code
}

func command(stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "dedup-relay",
		Short:         "Relay messages between two topics, each logical message once",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("no command given")
		},
	}
	root.AddCommand(runCommand(stderr), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version()) },
	})
	return root
}

// flags are the flags of run, as typed.
type flags struct {
	from, to, deadLetter, store, key, scope, vouchFrom, listen, file string
	ttl, lease                                                       time.Duration
}

func runCommand(stderr io.Writer) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "run --from URL --to URL --store STORE",
		Short: "Relay until told to stop: SIGTERM drains and exits 0, a second one exits at once",
		Long: `Relay until told to stop: SIGTERM drains and exits 0, a second one exits at once.

A URL that begins with kafka+tls:// or nats+tls:// is reached over TLS. Its parameters: tls-ca=FILE
(authorities to trust, default those of the system), tls-cert=FILE and tls-key=FILE (the relay's own
certificate), all in PEM. A user stands before the host, USER@, and the password in
password-file=FILE or password-env=NAME; for Kafka, sasl=SCRAM-SHA-512|SCRAM-SHA-256|PLAIN says how it
is told. NATS takes, in place of a user, creds=FILE, nkey=FILE (the seed), token-file=FILE or
token-env=NAME.`,
		Example: `  dedup-relay run --from 'kafka://localhost:9092/orders?group=orders-dedup' \
    --to kafka://localhost:9092/orders.once --store bolt:/var/lib/dedup-relay \
    --dead-letter kafka://localhost:9092/orders.dead`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.file != "" {
				if err := readFile(f.file, cmd.Flags()); err != nil {
					return misconfigured{err}
				}
			}
			config, err := f.config()
			switch {
			case err != nil && f.file != "":
				return misconfigured{fmt.Errorf("-c %s: %w", f.file, err)}
			case err != nil:
				return err
			}
			config.Version = version()
			config.Flags = make(map[string]string)
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" {
					config.Flags[f.Name] = f.Value.String()
				}
			})
			config.Logger = slog.New(slog.NewTextHandler(stderr, nil))
			if err := relayUntil(cmd.Context(), config); err != nil {
				return failure{err}
			}
			return nil
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "YAML file of NAME: VALUE lines with the names of these flags; what is typed counts")
	cmd.Flags().StringVar(&f.from, "from", "", "source: kafka[+tls]://[USER@]HOST:PORT[,HOST:PORT]/TOPIC?group=G[&session=30s][&start=earliest|latest][&out-of-range=fail|earliest|latest] | nats[+tls]://[USER@]HOST:PORT/SUBJECT?consumer=DURABLE[&stream=NAME] (required)")
	cmd.Flags().StringVar(&f.to, "to", "", "target: kafka[+tls]://[USER@]HOST:PORT[,HOST:PORT]/TOPIC[?compression=zstd] | nats[+tls]://[USER@]HOST:PORT/SUBJECT; {topic} or {subject} in it stands for the message's own (required)")
	cmd.Flags().StringVar(&f.store, "store", "", "where keys are remembered: bolt:DIR[?max-bytes=20GiB] | redis://HOST:PORT/DB | redis+sentinel://HOST:PORT,HOST:PORT/MASTER | redis+cluster://HOST:PORT,HOST:PORT | mem: (required)")
	cmd.Flags().StringVar(&f.key, "key", "header:Idempotency-Key", "how to derive the key, the first that applies: header:NAME | json:PATH | record-key | payload | position, comma-separated")
	cmd.Flags().StringVar(&f.scope, "scope", "", "name of this work in the store (default: the group or consumer, and the target)")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 24*time.Hour, "how long a key is remembered: longer than the longest backlog and the latest retry")
	cmd.Flags().DurationVar(&f.lease, "lease", 30*time.Second, "how long a claim outlives a relay that died")
	cmd.Flags().StringVar(&f.deadLetter, "dead-letter", "", "where messages go that cannot be relayed, such as those without a key (default: they halt their partition)")
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:9464", "where HTTP serves /metrics, /livez, /readyz and /statusz, without authentication: HOST:PORT; empty: nowhere")
	cmd.Flags().StringVar(&f.vouchFrom, "vouch-from", "", "for a new store: RFC 3339 time since when no message was relayed without it. What was published earlier counts as stale (default: now)")
	return cmd
}

// config checks what was typed, flag by flag.
func (f *flags) config() (c relay.Config, err error) {
	required := func(flag, value string) {
		if err == nil && value == "" {
			err = fmt.Errorf("--%s is missing", flag)
		}
	}
	required("from", f.from)
	required("to", f.to)
	required("store", f.store)
	at := func(flag string, e error) {
		if err == nil && e != nil {
			err = fmt.Errorf("--%s %w", flag, e)
		}
	}
	if err != nil {
		return c, err
	}
	var e error
	c.From, e = relay.ParseSource(f.from)
	at("from", e)
	c.To, e = relay.ParseTarget(f.to)
	at("to", e)
	c.Store, e = relay.ParseStore(f.store)
	at("store", e)
	c.Key, e = relay.ParseKey(f.key)
	at("key", e)
	if f.deadLetter != "" {
		c.DeadLetter, e = relay.ParseTarget(f.deadLetter)
		at("dead-letter", e)
	}
	if f.vouchFrom != "" {
		if c.VouchFrom, e = time.Parse(time.RFC3339, f.vouchFrom); e != nil || c.VouchFrom.After(time.Now()) {
			e = fmt.Errorf("%q is no time of the past: write it like 2026-01-02T15:04:05Z", f.vouchFrom)
		}
		at("vouch-from", e)
	}
	switch {
	case f.lease <= 0:
		at("lease", fmt.Errorf("%v is no duration of a claim: the default is 30s", f.lease))
	case f.ttl < f.lease:
		at("ttl", fmt.Errorf("%v is shorter than --lease %v: a key would be forgotten while it is relayed", f.ttl, f.lease))
	}
	if c.Listen = f.listen; c.Listen != "" {
		at("listen", relay.CheckListen(c.Listen))
	}
	c.Scope, c.TTL, c.Lease = f.scope, f.ttl, f.lease
	if err == nil {
		err = c.Check()
	}
	return c, err
}

// relayUntil relays until ctx ends, and logs what it did.
func relayUntil(ctx context.Context, config relay.Config) error {
	log := config.Logger
	r, err := relay.Open(ctx, config)
	if ctx.Err() != nil && err != nil {
		log.Info("stopped before it began")
		return nil
	}
	if err != nil {
		return err
	}
	attrs := []any{"from", config.From.String(), "reader", config.From.Reader(), "to", config.To.String(), "store", config.Store.String(), "ttl", config.TTL, "listen", listening(r), "version", version()}
	if config.DeadLetter.Kind != "" {
		attrs = append(attrs, "dead-letter", config.DeadLetter.String())
	}
	log.Info("beginning", attrs...)
	said := make(chan struct{})
	unneeded := context.AfterFunc(ctx, func() {
		defer close(said)
		log.Info("draining")
	})
	err = r.Run(ctx)
	if !unneeded() {
		<-said
	}
	err = errors.Join(err, r.Close())
	log.Info("stopped", "clean", err == nil, "summary", r.Summary().String())
	return err
}

// listening returns the address of the HTTP endpoints, as it is in the end.
func listening(r *relay.Relay) string {
	if a := r.Addr(); a != nil {
		return a.String()
	}
	return "nowhere"
}

// version returns the module version that the binary was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
