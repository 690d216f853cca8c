package relay

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Endpoint is a topic on a broker, as a URL names it:
//
//	kafka://HOST:PORT[,HOST:PORT]/TOPIC[?group=G&session=6s&start=earliest]
//
// The parameters are for a source. A target's TOPIC may hold {topic}, which
// stands for the topic of each message.
type Endpoint struct {
	Kind    string // "kafka"
	Brokers []string
	Topic   string

	Group   string        // source: the consumer group
	Session time.Duration // source: its session timeout; 0 is the transport's default
	Latest  bool          // source: without a committed offset begin at the end, not at the beginning
}

// topicHere is what a target's topic may hold for the message's own.
const topicHere = "{topic}"

// String returns the URL without parameters.
func (e Endpoint) String() string {
	return e.Kind + "://" + strings.Join(e.Brokers, ",") + "/" + e.Topic
}

// ParseSource reads the URL of a source.
func ParseSource(s string) (Endpoint, error) {
	e, params, err := parseEndpoint(s)
	if err != nil {
		return e, err
	}
	for name, values := range params {
		if len(values) > 1 {
			return e, fmt.Errorf("%q: the parameter %s occurs %d times", s, name, len(values))
		}
		value := values[0]
		switch name {
		case "group":
			e.Group = value
		case "session":
			e.Session, err = time.ParseDuration(value)
			if err != nil || e.Session <= 0 {
				return e, fmt.Errorf("%q: session=%s is not a duration: write it like session=30s", s, value)
			}
		case "start":
			if value != "earliest" && value != "latest" {
				return e, fmt.Errorf("%q: start=%s: it is earliest (the default) or latest", s, value)
			}
			e.Latest = value == "latest"
		default:
			return e, fmt.Errorf("%q: a source has no parameter %q: it has group, session and start", s, name)
		}
	}
	if e.Group == "" {
		return e, fmt.Errorf("%q names no consumer group: append ?group=NAME", s)
	}
	if strings.Contains(e.Topic, topicHere) {
		return e, fmt.Errorf("%q: %s stands for a message's topic and is for targets only", s, topicHere)
	}
	return e, nil
}

// ParseTarget reads the URL of a sink.
func ParseTarget(s string) (Endpoint, error) {
	e, params, err := parseEndpoint(s)
	if err != nil {
		return e, err
	}
	for name := range params {
		return e, fmt.Errorf("%q: a target has no parameters, but this one has %q", s, name)
	}
	return e, nil
}

// For returns the topic that a message of the source topic goes to.
func (e Endpoint) For(topic string) string {
	return strings.ReplaceAll(e.Topic, topicHere, topic)
}

const endpointForm = "kafka://HOST:PORT[,HOST:PORT]/TOPIC"

// parseEndpoint splits the URL itself: net/url refuses a list of hosts.
func parseEndpoint(s string) (e Endpoint, params url.Values, err error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return e, nil, fmt.Errorf("%q is not a URL: it has the form %s", s, endpointForm)
	case scheme != "kafka":
		return e, nil, fmt.Errorf("%q: unknown scheme %q: it has the form %s", s, scheme, endpointForm)
	}
	e.Kind = scheme
	rest, query, _ := strings.Cut(rest, "?")
	hosts, topic, _ := strings.Cut(rest, "/")
	if strings.Contains(hosts, "@") {
		return e, nil, fmt.Errorf("a %s URL holds a user or password, which is not supported: it would show in process lists", scheme)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err == nil && name == "" {
			err = fmt.Errorf("the host is missing")
		}
		if err == nil {
			var n uint64
			if n, err = strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				err = fmt.Errorf("%q is not a port", port)
			}
		}
		if err != nil {
			return e, nil, fmt.Errorf("%q: broker %q: %w: write HOST:PORT", s, host, err)
		}
		if !slices.Contains(e.Brokers, host) {
			e.Brokers = append(e.Brokers, host)
		}
	}
	if e.Topic, err = url.PathUnescape(topic); err != nil {
		return e, nil, fmt.Errorf("%q: topic %q: %w", s, topic, err)
	}
	if err := checkTopic(e.Topic); err != nil {
		return e, nil, fmt.Errorf("%q: %w", s, err)
	}
	if params, err = url.ParseQuery(query); err != nil {
		return e, nil, fmt.Errorf("%q: parameters %q: %w", s, query, err)
	}
	return e, params, nil
}

// checkTopic holds Kafka's rule for topic names.
func checkTopic(topic string) error {
	plain := strings.ReplaceAll(topic, topicHere, "x")
	switch {
	case plain == "":
		return fmt.Errorf("it names no topic: it has the form %s", endpointForm)
	case plain == "." || plain == ".." || len(plain) > 249:
		return fmt.Errorf("topic %q: . and .. are no names, and a name has 1 to 249 characters", topic)
	}
	for _, c := range plain {
		if c != '.' && c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return fmt.Errorf("topic %q: %q cannot be part of a name: it has letters, digits, '.', '_' and '-'", topic, c)
		}
	}
	return nil
}
