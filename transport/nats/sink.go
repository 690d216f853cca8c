package natstransport

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
)

// SinkConfig configures a [Sink]. A nil *SinkConfig, and each zero field, means the default.
// NewSink copies it and never changes it.
type SinkConfig struct {
	// Route names the purpose of this Sink. It is part of the default MsgID, so that a
	// message which is published for two purposes is two messages for the stream. Default:
	// the subject of the Sink.
	Route string
	// MsgID returns the Nats-Msg-Id of a message, or "" for none. A stream drops a message
	// with an id that it has stored within its duplicate window. Default: derived from Route,
	// the subject of the message and Claim.ID; without a Claim, none.
	//
	// If a handler publishes several messages of one claim to one subject, it needs a MsgID
	// of its own. Otherwise the stream drops all but the first.
	MsgID func(*dedup.Message) string
	// DeadLetters is for a Sink of dead letters. Its stream must not drop a dead letter as a
	// duplicate, because the message would be lost. So Publish returns ErrDuplicate in that
	// case, and the default MsgID also depends on Claim.Token: a message that is parked again
	// is stored again.
	DeadLetters bool
	// Stream is the name of the stream that must store the messages. If another stream has
	// taken over the subject, it refuses them. Default: any stream.
	Stream string
	// Window is how many messages may wait for their confirmation at once. Default 1024.
	Window int
	// Timeout is how long to wait for a confirmation. After that the message is MaybeDone.
	// Default 10s.
	Timeout time.Duration
	// Redelivery is the longest time until a message whose handler died is handled again: the
	// AckWait of the durable consumer that it comes from, or dedup.Options.Lease if that is
	// longer. Check logs a warning if the duplicate window of the stream is shorter than
	// three times Redelivery, or than two minutes. Default 30s.
	Redelivery time.Duration
	// Logger receives the warnings of Check, each once. Default: no logging.
	Logger *slog.Logger
}

// maxRedelivery can be multiplied by three.
const maxRedelivery = math.MaxInt64 / 3

// Sink writes messages to JetStream and waits for the confirmation of each. [NewSink] makes
// one. Its methods may be called by several goroutines at once.
type Sink struct {
	js      jetstream.JetStream
	conn    *nats.Conn
	subject string
	scope   string // of the default of MsgID, if subject is set
	config  SinkConfig
	window  chan struct{} // has an element for each message that waits for its confirmation
	inbox   string        // where confirmations arrive
	sub     *nats.Subscription

	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup
	number  int             // of the last flight
	flights map[int]*flight // those under way
	remarks map[string]bool // made by Check
}

// ErrDuplicate means that the stream took a dead letter for a duplicate and did not store it.
// See SinkConfig.DeadLetters.
var ErrDuplicate = errors.New("the stream took it for a duplicate and did not store it")

var errSinkClosed = errors.New("natstransport: the sink is closed")

// NewSink makes a Sink that publishes to the subject. If subject is empty, it publishes each
// message to Message.Topic. c may be nil. NewSink does not ask the server: [Sink.Check] does.
// The connection belongs to the caller: close it after the Sink.
func NewSink(js jetstream.JetStream, subject string, c *SinkConfig) (*Sink, error) {
	s := &Sink{subject: subject}
	if c != nil {
		s.config = *c
	}
	if js == nil {
		return nil, errNoJetStream
	}
	if subject != "" {
		if err := checkSubject(subject); err != nil {
			return nil, err
		}
	}
	if s.config.Stream != "" {
		if err := checkName("stream", s.config.Stream); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(
		within("Window", s.config.Window, math.MaxInt),
		within("Timeout", s.config.Timeout, math.MaxInt64),
		within("Redelivery", s.config.Redelivery, maxRedelivery),
	); err != nil {
		return nil, err
	}
	s.config.Route = orDefault(s.config.Route, subject)
	if subject != "" {
		s.scope = s.scopeOf(subject)
	}
	s.config.Window = orDefault(s.config.Window, 1024)
	s.config.Timeout = orDefault(s.config.Timeout, 10*time.Second)
	s.config.Redelivery = orDefault(s.config.Redelivery, 30*time.Second)
	if s.config.MsgID == nil {
		s.config.MsgID = s.msgID
	}
	if s.config.Logger == nil {
		s.config.Logger = slog.New(slog.DiscardHandler)
	}
	s.js, s.conn = js, js.Conn()
	s.window = make(chan struct{}, s.config.Window)
	s.flights = make(map[int]*flight)
	s.inbox = s.conn.NewInbox()
	var err error
	if s.sub, err = s.conn.Subscribe(s.inbox+".*.*", s.heard); err != nil {
		return nil, fmt.Errorf("natstransport: subscribe to confirmations: %w", err)
	}
	_ = s.sub.SetPendingLimits(-1, -1) // Window is the limit
	return s, nil
}

// msgID is the default of SinkConfig.MsgID.
func (s *Sink) msgID(m *dedup.Message) string {
	if m.Claim.ID == (dedup.ID{}) {
		return ""
	}
	claim := m.Claim.ID.String()
	if s.config.DeadLetters {
		claim = fmt.Sprintf("%s.%d", claim, m.Claim.Token)
	}
	scope := s.scope
	if scope == "" {
		scope = s.scopeOf(m.Topic)
	}
	return dedup.NewID(scope, dedup.Key(claim)).String()
}

func (s *Sink) scopeOf(subject string) string { return s.config.Route + "\x00" + subject }

func (s *Sink) target(m *dedup.Message) string {
	if s.subject != "" {
		return s.subject
	}
	return m.Topic
}

// Close waits for the calls of Publish that are under way. Later calls of Publish fail. Close
// does not close the connection.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
	_ = s.sub.Unsubscribe() // a connection that is closed has done it
	return nil
}

func (s *Sink) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.calls.Add(1)
	}
	return !s.closed
}

// fill makes out the client library's message of m.
func (s *Sink) fill(out *nats.Msg, m *dedup.Message) error {
	subject := s.target(m)
	if s.subject == "" {
		if err := checkSubject(subject); err != nil {
			return dedup.Permanent(err)
		}
	}
	out.Subject, out.Data = subject, m.Value
	id := s.config.MsgID(m)
	if len(m.Headers) == 0 && id == "" && s.config.Stream == "" {
		return nil
	}
	out.Header = make(nats.Header, len(m.Headers)+2)
	values := make([]string, 0, len(m.Headers)+2) // one slab for all names
	add := func(name, value string) {
		values = append(values, value)
		if out.Header[name] == nil {
			out.Header[name] = values[len(values)-1 : len(values) : len(values)]
		} else {
			out.Header[name] = append(out.Header[name], value)
		}
	}
	for _, h := range m.Headers {
		if control(h.Key) {
			continue
		}
		value := string(h.Value)
		if !carries(h.Key, value) {
			return dedup.Permanent(fmt.Errorf("natstransport: NATS cannot carry the header %.40q as it is: a name has letters, digits and some signs, a value no line breaks and no spaces at its ends; leave it out, or encode it", h.Key))
		}
		add(h.Key, value)
	}
	if id != "" {
		add(jetstream.MsgIDHeader, id)
	}
	if s.config.Stream != "" {
		add(jetstream.ExpectedStreamHeader, s.config.Stream)
	}
	return nil
}

// control says whether a header is an instruction to the server: one that a
// message brought from elsewhere could delete messages here.
func control(name string) bool {
	const prefix = "Nats-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// carries says whether a header comes out of NATS as it went in: the client
// library replaces line breaks, cuts spaces, and refuses names.
func carries(name, value string) bool {
	if name == "" || strings.ContainsAny(value, "\r\n") || strings.Trim(value, " \t") != value {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"()/,:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return true
}
