package natstransport

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// puller asks the server for messages: the next request goes out while an earlier
// one still brings some, as far as the hand has room. The client library's own
// loops count a message as handled when their callback returns, so that they either
// hold messages back where nobody can keep them alive, or bound nothing.
type puller struct {
	*session
	subject   string // of requests
	heartbeat time.Duration
	expires   time.Duration
	maxBatch  int             // of one request; 0: no limit
	maxBytes  int             // the same
	ended     chan struct{}   // has an element when a request has ended
	well      func(time.Time) // called at each heartbeat

	last   atomic.Int64 // when something was heard, as session.now
	faulty atomic.Bool  // faults is not 0

	mu      sync.Mutex
	inbox   string        // where messages and statuses arrive: inbox.N for request N
	used    bool          // a request named the inbox
	sent    time.Duration // when the last request was, as session.now
	number  int           // of the last request
	oldest  int           // number of the oldest request that may be under way
	largest int           // size of the largest message that can come
	why     error         // what went wrong, until serve has heard it
	faults  int           // since something came as it should
}

// pullRequest is what the server's API calls JSApiConsumerGetNextRequest.
type pullRequest struct {
	Expires   time.Duration `json:"expires"`
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes"` // 0: no limit
	Heartbeat time.Duration `json:"idle_heartbeat"`
}

// overhead is more than a message has besides what the server's max_payload bounds:
// its subject, and where the answer goes.
const overhead = 8 << 10

func newPuller(s *session, o jetstream.ConsumerConfig, well func(time.Time)) *puller {
	prefix := jetstream.DefaultAPIPrefix
	switch opts := s.consumer.js.Options(); {
	case opts.APIPrefix != "":
		prefix = strings.TrimSuffix(opts.APIPrefix, ".") + "."
	case opts.Domain != "":
		prefix = fmt.Sprintf("$JS.%s.API.", opts.Domain)
	}
	p := &puller{
		session:   s,
		subject:   fmt.Sprintf("%sCONSUMER.MSG.NEXT.%s.%s", prefix, s.consumer.stream, s.consumer.durable),
		expires:   s.config.expires,
		heartbeat: s.config.heartbeat,
		maxBatch:  o.MaxRequestBatch,
		maxBytes:  o.MaxRequestMaxBytes,
		ended:     make(chan struct{}, 1),
		well:      well,
		largest:   int(s.conn.MaxPayload()) + overhead,
		sent:      s.now(), // an earlier member's may still be served
	}
	if o.MaxRequestExpires > 0 {
		p.expires = min(p.expires, o.MaxRequestExpires)
	}
	p.heartbeat = min(p.heartbeat, p.expires/2)
	s.hand.forget()
	return p
}

// pull asks for messages if there is room for them.
func (p *puller) pull() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != nil {
		return nil // serve has not heard yet what went wrong
	}
	if !p.hand.waiting() {
		p.giveUp() // all requests have ended, what their statuses may still say
	}
	n, bytes := p.hand.ask(p.largest, p.maxBatch, p.maxBytes)
	if n == 0 {
		return nil
	}
	return p.request(n, bytes)
}

// pullAgain asks for n messages that were delivered before, whether there is room or not.
func (p *puller) pullAgain(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.maxBatch > 0 {
		n = min(n, p.maxBatch)
	}
	p.hand.insist(n, p.maxBytes)
	return p.request(n, p.maxBytes)
}

// request asks for what the hand has reserved. The caller holds mu.
func (p *puller) request(n, bytes int) error {
	request, err := json.Marshal(pullRequest{Expires: p.expires, Batch: n, MaxBytes: bytes, Heartbeat: p.heartbeat})
	if err != nil {
		return err
	}
	p.number++
	if err := p.conn.PublishRequest(p.subject, p.inbox+"."+strconv.Itoa(p.number), request); err != nil {
		p.hand.unask(n, bytes)
		return err
	}
	p.sent, p.used = p.now(), true
	p.last.Store(int64(p.sent))
	return nil
}

// answerTo gives up the requests, and has the next ones answered to the inbox.
func (p *puller) answerTo(inbox string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbox, p.used = inbox, false
	p.giveUp()
}

// asked says whether something may come to the inbox.
func (p *puller) asked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// ends returns when the server serves no request of before any more, not even one for
// a connection whose loss it has not noticed.
func (p *puller) ends() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent + p.expires + p.config.slack
}

func (p *puller) delivered(now time.Duration) {
	p.last.Store(int64(now))
	p.noFault()
}

func (p *puller) noFault() {
	if p.faulty.Swap(false) {
		p.mu.Lock()
		p.faults = 0
		p.mu.Unlock()
	}
}

// heard takes in a status of the request of that number. What it returns puts the
// binding in doubt: it is to be complained of.
func (p *puller) heard(request int, m *nats.Msg) (why error) {
	p.last.Store(int64(p.now()))
	code, text := m.Header.Get("Status"), strings.ToLower(m.Header.Get("Description"))
	if code == "100" { // a heartbeat
		p.noFault()
		p.well(time.Now())
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	deleted := code == "409" && strings.Contains(text, "consumer deleted")
	if request < p.oldest && !deleted {
		return nil
	}
	messages, told := pending(m, "Nats-Pending-Messages")
	bytes, _ := pending(m, "Nats-Pending-Bytes")
	switch {
	case deleted:
		return jetstream.ErrConsumerDeleted
	case code == "404", code == "408", strings.Contains(text, "batch completed"): // it is over
	case strings.Contains(text, "exceeds maxbytes"):
		switch {
		case p.maxBytes > 0 && bytes >= p.maxBytes:
			return fmt.Errorf("the next message is larger than max_bytes %d of the consumer: nats consumer edit %s %s --max-pull-bytes=%d", p.maxBytes, p.consumer.stream, p.consumer.durable, 2*p.largest)
		case bytes >= p.largest: // it was stored when the server took larger ones
			p.largest = 2 * bytes
		}
	case code == "503":
		return nats.ErrNoResponders
	default:
		return errors.New("nats: " + code + " " + m.Header.Get("Description"))
	}
	if told {
		p.hand.unask(messages, bytes)
	} else {
		p.giveUp()
	}
	p.wake()
	return nil
}

// pending returns what a request that has ended did not bring, as its status says.
func pending(m *nats.Msg, header string) (n int, told bool) {
	n, err := strconv.Atoi(m.Header.Get(header))
	return max(n, 0), err == nil
}

func (p *puller) wake() {
	select {
	case p.ended <- struct{}{}:
	default:
	}
}

// complain gives up the requests, and has serve look after something that went wrong.
func (p *puller) complain(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		p.why = why
	}
	p.giveUp()
	p.wake()
}

// complaint returns how often something went wrong before, and what did now, once.
func (p *puller) complaint() (faults int, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	why, p.why = p.why, nil
	if why != nil {
		p.faults++
		p.faulty.Store(true)
	}
	return max(p.faults-1, 0), why
}

// silent says that the server no longer shows that a request lives.
func (p *puller) silent() bool {
	return p.hand.waiting() && p.now()-time.Duration(p.last.Load()) > 2*p.heartbeat
}

// forget gives up the requests.
func (p *puller) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveUp()
}

// giveUp is forget. The caller holds mu.
func (p *puller) giveUp() {
	p.oldest = p.number + 1
	p.hand.forget()
}
