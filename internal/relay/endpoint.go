package relay

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// Kind is a kind of broker.
type Kind string

// The kinds of brokers.
const (
	Kafka Kind = "kafka"
	NATS  Kind = "nats"
)

// name is the broker's name in a sentence.
func (k Kind) name() string {
	if k == NATS {
		return "NATS"
	}
	return "Kafka"
}

// Endpoint is a topic on a Kafka broker, or a subject on a NATS server, as a URL
// names it:
//
//	kafka[+tls]://[USER@]HOST:PORT[,HOST:PORT]/TOPIC[?group=G&session=6s&start=earliest&out-of-range=fail]
//	nats[+tls]://[USER@]HOST:PORT[,HOST:PORT]/SUBJECT[?consumer=DURABLE&stream=NAME]
//
// The parameters are for a source; those of a Kafka target are compression, and
// of both see Security. A target's topic or subject may hold {topic} or, which is
// the same, {subject}: it stands for that of each message.
type Endpoint struct {
	Kind     Kind
	Hosts    []string
	Topic    string // or subject
	Security Security

	Compression kafka.Compression // Kafka target; 0: none

	Group   string        // Kafka source: the consumer group
	Session time.Duration // Kafka source: its session timeout; 0 is the transport's default
	Latest  bool          // Kafka source: without a committed offset begin at the end, not at the beginning

	OutOfRange kafkatransport.OffsetPolicy // Kafka source: what to do when the log does not have the committed offset

	Consumer string // NATS source: the durable consumer
	Stream   string // NATS source: the stream; empty: the one that has the subject
}

// String returns the URL without user and parameters.
func (e Endpoint) String() string {
	scheme := string(e.Kind)
	if e.Security.TLS {
		scheme += plusTLS
	}
	return scheme + "://" + strings.Join(e.Hosts, ",") + "/" + e.Topic
}

// Reader names who reads the source: the group or the consumer.
func (e Endpoint) Reader() string { return e.Group + e.Consumer }

// For returns the topic or subject of a target that a message goes to.
func (e Endpoint) For(topic string) string {
	if !strings.Contains(e.Topic, "{") {
		return e.Topic
	}
	return strings.NewReplacer("{topic}", topic, "{subject}", topic).Replace(e.Topic)
}

var offsetPolicies = map[string]kafkatransport.OffsetPolicy{
	"fail": kafkatransport.Fail, "earliest": kafkatransport.Earliest, "latest": kafkatransport.Latest,
}

// parameters are the parameters of a URL, each with the function that takes its value.
type parameters map[string]func(value string) error

// sourceParameters are those of a source, besides those of its security.
func (e *Endpoint) sourceParameters() parameters {
	if e.Kind == NATS {
		return parameters{"consumer": into(&e.Consumer), "stream": into(&e.Stream)}
	}
	return parameters{"group": into(&e.Group), "session": e.setSession, "start": e.setStart, "out-of-range": e.setOutOfRange}
}

// targetParameters are those of a target and of dead letters, besides those of its
// security.
func (e *Endpoint) targetParameters() parameters {
	if e.Kind == NATS {
		return nil
	}
	return parameters{"compression": e.setCompression}
}

func into(to *string) func(string) error {
	return func(value string) error {
		*to = value
		return nil
	}
}

func (e *Endpoint) setSession(value string) (err error) {
	e.Session, err = time.ParseDuration(value)
	if err != nil || e.Session <= 0 {
		return fmt.Errorf("session=%s is not a duration: write it like session=30s", value)
	}
	return nil
}

func (e *Endpoint) setStart(value string) error {
	if value != "earliest" && value != "latest" {
		return fmt.Errorf("start=%s: it is earliest (the default) or latest", value)
	}
	e.Latest = value == "latest"
	return nil
}

func (e *Endpoint) setOutOfRange(value string) error {
	policy, known := offsetPolicies[value]
	if !known {
		return fmt.Errorf("out-of-range=%s: it is fail (the default), earliest or latest", value)
	}
	e.OutOfRange = policy
	return nil
}

func (e *Endpoint) setCompression(value string) error {
	if err := e.Compression.UnmarshalText([]byte(value)); err != nil {
		return fmt.Errorf("compression=%s: it is one of gzip, snappy, lz4, zstd and none", value)
	}
	return nil
}

// takeParameters takes the values of params. owner is whose they are.
func takeParameters(params url.Values, known parameters, owner string) error {
	for name, values := range params {
		take := known[name]
		switch {
		case take == nil && len(known) == 0:
			return fmt.Errorf("a %s has no parameter %q: it has those of its security", owner, name)
		case take == nil:
			return fmt.Errorf("a %s has no parameter %q: it has %s, and those of its security", owner, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case len(values) > 1:
			return fmt.Errorf("the parameter %s occurs %d times", name, len(values))
		}
		if err := take(values[0]); err != nil {
			return err
		}
	}
	return nil
}

// ParseSource reads the URL of a source.
func ParseSource(s string) (Endpoint, error) {
	shown := redacted("", s)
	e, params, err := parseEndpoint(s)
	if err != nil {
		return e, err
	}
	if err := takeParameters(params, e.sourceParameters(), e.Kind.name()+" source"); err != nil {
		return e, fmt.Errorf("%q: %w", shown, err)
	}
	switch {
	case e.Kind == Kafka && e.Group == "":
		return e, fmt.Errorf("%q names no consumer group: append ?group=NAME", shown)
	case e.Kind == NATS && e.Consumer == "":
		return e, fmt.Errorf("%q names no durable consumer: append ?consumer=NAME", shown)
	case e.For("x") != e.Topic:
		return e, fmt.Errorf("%q: {topic} and {subject} stand for those of a message and are for targets only", shown)
	}
	for _, name := range []string{e.Consumer, e.Stream} {
		if strings.ContainsAny(name, ". \t\r\n*>/\\") {
			return e, fmt.Errorf("%q: %q is no name of a stream or consumer: it has no dots, wildcards, slashes or spaces", shown, name)
		}
	}
	return e, nil
}

// ParseTarget reads the URL of a sink.
func ParseTarget(s string) (Endpoint, error) {
	shown := redacted("", s)
	e, params, err := parseEndpoint(s)
	if err != nil {
		return e, err
	}
	if err := takeParameters(params, e.targetParameters(), e.Kind.name()+" target"); err != nil {
		return e, fmt.Errorf("%q: %w", shown, err)
	}
	if e.Kind == NATS && strings.ContainsAny(e.Topic, "*>") {
		return e, fmt.Errorf("%q: one cannot publish to the wildcard %q: name a subject", shown, e.Topic)
	}
	return e, nil
}

const (
	plusTLS      = "+tls"
	endpointForm = "kafka://HOST:PORT[,HOST:PORT]/TOPIC or nats://HOST:PORT[,HOST:PORT]/SUBJECT"
)

var errPassword = errors.New("a password in a URL would show in process lists: write password-file=FILE or password-env=NAME")

// parseEndpoint splits the URL itself: net/url refuses a list of hosts.
func parseEndpoint(s string) (e Endpoint, params url.Values, err error) {
	shown := redacted("", s)
	scheme, rest, ok := strings.Cut(s, "://")
	kind, secure := strings.CutSuffix(scheme, plusTLS)
	e.Kind, e.Security.TLS = Kind(kind), secure
	switch {
	case !ok:
		return e, nil, fmt.Errorf("%q is not a URL: it has the form %s", shown, endpointForm)
	case e.Kind != Kafka && e.Kind != NATS:
		return e, nil, fmt.Errorf("%q: unknown scheme %q: it has the form %s", shown, scheme, endpointForm)
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, topic, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		e.Security.User, err = url.PathUnescape(hosts[:at])
		switch {
		case strings.Contains(hosts[:at], ":"):
			return e, nil, fmt.Errorf("%q: %w", shown, errPassword)
		case err != nil || at == 0:
			return e, nil, fmt.Errorf("%q: what stands before the @ is no user", shown)
		}
		hosts = hosts[at+1:]
	}
	if strings.Contains(topic, "@") { // the password has a slash; a subject's @ is written %40
		return e, nil, fmt.Errorf("%q: %w", shown, errPassword)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if err := checkHost(host); err != nil {
			return e, nil, fmt.Errorf("%q: host %q: %w: write HOST:PORT", shown, host, err)
		}
		if !slices.Contains(e.Hosts, host) {
			e.Hosts = append(e.Hosts, host)
		}
	}
	if e.Topic, err = url.PathUnescape(topic); err != nil {
		return e, nil, fmt.Errorf("%q: topic %q: %w", shown, topic, err)
	}
	check := checkTopic
	if e.Kind == NATS {
		check = checkSubject
	}
	if err := check(e.For("x")); err != nil {
		return e, nil, fmt.Errorf("%q: %w", shown, err)
	}
	if params, err = url.ParseQuery(query); err != nil {
		return e, nil, fmt.Errorf("%q: parameters: %w", shown, err)
	}
	if err := e.Security.take(e.Kind, params); err != nil {
		return e, nil, fmt.Errorf("%q: %w", shown, err)
	}
	return e, params, nil
}

func checkHost(host string) error {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return err
	}
	if name == "" {
		return errors.New("the host is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

// checkTopic holds Kafka's rule for topic names.
func checkTopic(topic string) error {
	switch {
	case topic == "":
		return fmt.Errorf("it names no topic: it has the form %s", endpointForm)
	case topic == "." || topic == ".." || len(topic) > 249:
		return fmt.Errorf("topic %q: . and .. are no names, and a name has 1 to 249 characters", topic)
	}
	for _, c := range topic {
		if c != '.' && c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return fmt.Errorf("topic %q: %q cannot be part of a name: it has letters, digits, '.', '_' and '-'", topic, c)
		}
	}
	return nil
}

// checkSubject holds NATS' rule for subjects: tokens between dots, of printable
// characters; * is a token, and > the last one.
func checkSubject(subject string) error {
	if subject == "" {
		return fmt.Errorf("it names no subject: it has the form %s", endpointForm)
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("subject %q: a token between its dots is empty", subject)
		case token == ">" && i < len(tokens)-1:
			return fmt.Errorf("subject %q: > can only be its last token", subject)
		case len(token) > 1 && strings.ContainsAny(token, "*>"):
			return fmt.Errorf("subject %q: a wildcard is a token of its own", subject)
		}
		for _, c := range token {
			if c <= ' ' || c == 0x7f {
				return fmt.Errorf("subject %q: %q cannot be part of it", subject, c)
			}
		}
	}
	return nil
}
