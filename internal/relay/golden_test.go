package relay

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/oncequeue/oncequeue/internal/golden"
)

// The parameters of URLs change only with a word in the changelog. They are those of the
// tables that the parsers use.
func TestURLParameters(t *testing.T) {
	var lines []string
	for _, kind := range []Kind{Kafka, NATS} {
		for _, tls := range []bool{false, true} {
			e := Endpoint{Kind: kind, Security: Security{TLS: tls}}
			scheme := string(kind)
			if tls {
				scheme += plusTLS
			}
			secure := securityParameters(&e.Security, kind)
			source := slices.AppendSeq(slices.Clone(secure), maps.Keys(e.sourceParameters()))
			target := slices.AppendSeq(slices.Clone(secure), maps.Keys(e.targetParameters()))
			lines = append(lines, urlLines("source", scheme+"://", source)...)
			lines = append(lines, urlLines("target, dead letter", scheme+"://", target)...)
		}
	}
	lines = append(lines, urlLines("store", "bolt:", slices.Collect(maps.Keys(new(StoreURL).boltParameters())))...)
	lines = append(lines, urlLines("store", "mem:", nil)...)
	for _, scheme := range []string{"redis", "rediss"} {
		for suffix, u := range map[string]redisURL{"": {}, plusSentinel: {Master: "main"}, plusCluster: {Cluster: true}} {
			u.Security.TLS = scheme == "rediss"
			lines = append(lines, urlLines("store", scheme+suffix+"://", redisParameters(u))...)
		}
	}
	golden.Lines(t, "testdata/url-parameters.txt", lines)
}

func urlLines(role, scheme string, names []string) (lines []string) {
	if len(names) == 0 {
		return []string{fmt.Sprintf("%s %s none", role, scheme)}
	}
	for _, name := range names {
		lines = append(lines, fmt.Sprintf("%s %s %s", role, scheme, name))
	}
	return lines
}

func securityParameters(s *Security, kind Kind) (names []string) {
	forTLS, forUser, alone := s.parameters(kind)
	if s.TLS {
		names = slices.AppendSeq(names, maps.Keys(forTLS))
	}
	for name := range forUser {
		names = append(names, name+" (with USER@)")
	}
	return slices.AppendSeq(names, maps.Keys(alone))
}

func redisParameters(u redisURL) (names []string) {
	for name := range u.parameters(new(string)) {
		if u.Security.TLS || !forTLS(name) {
			names = append(names, name)
		}
	}
	return names
}

// The fields of the JSON that endpoints answer change only with a word in the changelog.
func TestFieldsOfTheEndpoints(t *testing.T) {
	var lines []string
	for path, fields := range map[string][]string{
		"/statusz": golden.JSONFields[status](), "/readyz": golden.JSONFields[report](), "/livez": golden.JSONFields[check](),
	} {
		for _, f := range fields {
			lines = append(lines, path+" "+f)
		}
	}
	golden.Lines(t, "testdata/endpoints.txt", lines)
}

// The relay's own metrics change only with a word in the changelog. Those of the library
// have lists beside their packages.
func TestMetricsOfTheRelay(t *testing.T) {
	reg, _ := newRegistry("scope", "version")
	golden.Metrics(t, "testdata/metrics.txt", reg)
}
