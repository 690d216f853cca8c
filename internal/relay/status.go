package relay

import (
	"context"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// status is what /statusz shows.
type status struct {
	Version string            `json:"version"`
	Phase   string            `json:"phase"`
	Started time.Time         `json:"started"`
	Scope   string            `json:"scope"`
	Flags   map[string]string `json:"flags"` // in force, defaults included
	Tier    tier              `json:"tier"`
	Source  *sourceStatus     `json:"source,omitempty"`
	Store   storeStatus       `json:"store"`
	Counts  counts            `json:"counts"`
}

// tier is which promise of the design is in force for the output.
type tier struct {
	Name    string `json:"name"`
	Repeats string `json:"repeats"`
}

type storeStatus struct {
	URL     string    `json:"url"`
	ID      string    `json:"id,omitempty"`
	Since   time.Time `json:"since,omitzero"` // the memory is complete from then on
	Shared  bool      `json:"shared"`
	Records *int64    `json:"records,omitempty"`
	Bytes   *int64    `json:"bytes,omitempty"`
	Limit   int64     `json:"limit,omitempty"` // at so many bytes new claims are refused
	Error   string    `json:"error,omitempty"`

	Durability string `json:"durability,omitempty"` // what an answer survives
	Changes    int64  `json:"changes,omitempty"`    // times that a server was replaced, restarted or added, which raised Since
}

type counts struct {
	Relayed       int64 `json:"relayed"`
	Ambiguous     int64 `json:"ambiguous"`
	Duplicates    int64 `json:"duplicates"`
	Parked        int64 `json:"parked"`
	AlreadyParked int64 `json:"already_parked"` // came under a parked key
	Retried       int64 `json:"retried"`
	InFlight      int64 `json:"in_flight"`
}

func (r *Relay) status(ctx context.Context) status {
	s := r.Summary()
	out := status{
		Version: r.config.Version,
		Phase:   r.activity.now().String(),
		Started: r.started,
		Scope:   r.config.Scope,
		Flags:   make(map[string]string, len(r.config.Flags)),
		Tier:    r.config.To.tier(),
		Store:   storeStatus{URL: redacted("store", r.config.Store.String())},
		Counts: counts{
			Relayed: s.Relayed, Ambiguous: s.Ambiguous, Duplicates: s.Duplicates,
			Parked: s.Parked, AlreadyParked: s.AlreadyParked, Retried: s.Retried, InFlight: r.activity.inFlight.Load(),
		},
	}
	for name, value := range r.config.Flags {
		out.Flags[name] = redacted(name, value)
	}
	if _, ok := out.Flags["scope"]; ok {
		out.Flags["scope"] = r.config.Scope // its default depends on the others
	}
	if r.activity.now() == opening {
		return out // the rest is not there yet
	}
	source := r.source.Status()
	out.Source = &source
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	vouch, err := r.records.Vouch(ctx)
	if err != nil {
		out.Store.Error = line(err.Error())
		return out
	}
	out.Store.ID, out.Store.Since, out.Store.Shared = vouch.ID, vouch.Since, vouch.Shared
	if inspector, ok := r.records.(driver.Inspector); ok {
		if stats, err := inspector.Stats(ctx); err != nil {
			out.Store.Error = line(err.Error())
		} else {
			out.Store.Records, out.Store.Bytes, out.Store.Limit = &stats.Records, &stats.Bytes, stats.Limit
			out.Store.Durability, out.Store.Changes = stats.Durability, stats.Changes
		}
	}
	return out
}

// tier returns which tier of the design the target gives.
func (e Endpoint) tier() tier {
	if e.Kind == NATS {
		return tier{Name: "fenced", Repeats: "none within the stream's duplicate window; after that as in plain, with " + HeaderAmbiguous + ": true"}
	}
	return tier{Name: "plain", Repeats: "after a crash, a pause or an unknown outcome, and then with " + HeaderAmbiguous + ": true"}
}

const hidden = "REDACTED"

// redacted returns the value of a flag without what could be a secret: all of it
// if its name says so, whatever stands before the last @ of a URL, and parameters
// whose names say so. It rather hides too much.
func redacted(name, value string) string {
	if value == "" {
		return value
	}
	if secret(name) {
		return hidden
	}
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		return value
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = hidden + rest[at:]
	}
	base, query, ok := strings.Cut(rest, "?")
	if !ok {
		return scheme + "://" + rest
	}
	params := strings.FieldsFunc(query, func(c rune) bool { return c == '&' || c == ';' })
	for i, p := range params {
		if name, _, ok := strings.Cut(p, "="); ok && secret(name) {
			params[i] = name + "=" + hidden
		}
	}
	return scheme + "://" + base + "?" + strings.Join(params, "&")
}

// secret reports whether what has the name is one.
func secret(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"pass", "secret", "token", "cred", "auth", "nkey", "seed", "jwt", "private", "apikey", "api_key", "api-key"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
