package natstransport

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// puller asks the server for messages, with one request at a time. The client
// library's own loops count a message as handled when their callback returns, so
// that they either hold messages back where nobody can keep them alive, or bound
// nothing.
type puller struct {
	*session
	subject   string // of requests
	inbox     string // where messages and statuses arrive: inbox.N for request N
	heartbeat time.Duration
	expires   time.Duration
	maxBatch  int           // 0: no limit
	spent     chan struct{} // has an element when the request has ended
	well      func()        // called at each heartbeat

	mu     *sync.Mutex
	number int           // of the request
	left   int           // messages that it may still bring
	last   time.Duration // when something was heard, as session.now
	why    error         // what went wrong, until serve has heard it
	faults int           // since something came as it should
}

// pullRequest is what the server's API calls JSApiConsumerGetNextRequest.
type pullRequest struct {
	Expires   time.Duration `json:"expires"`
	Batch     int           `json:"batch"`
	Heartbeat time.Duration `json:"idle_heartbeat"`
}

func newPuller(s *session, o jetstream.ConsumerConfig, well func()) puller {
	prefix := jetstream.DefaultAPIPrefix
	switch opts := s.consumer.js.Options(); {
	case opts.APIPrefix != "":
		prefix = strings.TrimSuffix(opts.APIPrefix, ".") + "."
	case opts.Domain != "":
		prefix = fmt.Sprintf("$JS.%s.API.", opts.Domain)
	}
	p := puller{
		session:   s,
		subject:   fmt.Sprintf("%sCONSUMER.MSG.NEXT.%s.%s", prefix, s.consumer.stream, s.consumer.durable),
		inbox:     s.conn.NewInbox(),
		expires:   s.config.expires,
		heartbeat: s.config.heartbeat,
		maxBatch:  o.MaxRequestBatch,
		spent:     make(chan struct{}, 1),
		well:      well,
		mu:        new(sync.Mutex),
	}
	if o.MaxRequestExpires > 0 {
		p.expires = min(p.expires, o.MaxRequestExpires)
	}
	p.heartbeat = min(p.heartbeat, p.expires/2)
	return p
}

// pull asks for messages if there is room for them and no request under way.
func (p *puller) pull() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left > 0 || p.why != nil {
		return nil // or serve has not heard yet what went wrong
	}
	n := p.hand.wanted()
	if n == 0 {
		return nil
	}
	if p.maxBatch > 0 {
		n = min(n, p.maxBatch)
	}
	request, err := json.Marshal(pullRequest{Expires: p.expires, Batch: n, Heartbeat: p.heartbeat})
	if err != nil {
		return err
	}
	p.number++
	if err := p.conn.PublishRequest(p.subject, p.inbox+"."+strconv.Itoa(p.number), request); err != nil {
		return err
	}
	p.left, p.last = n, p.now()
	return nil
}

// isStatus tells the server's words on a request, which come to the inbox itself,
// from messages, which keep the subject that they were published to.
func (p *puller) isStatus(m *nats.Msg) (request int, ok bool) {
	number, ok := strings.CutPrefix(m.Subject, p.inbox+".")
	if !ok {
		return 0, false
	}
	request, err := strconv.Atoi(number)
	return request, err == nil
}

func (p *puller) delivered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.faults = p.now(), 0
	if p.left = max(p.left-1, 0); p.left == 0 { // more may come of a request that was given up
		p.wake()
	}
}

// heard takes in a status of the request of that number.
func (p *puller) heard(request int, m *nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	code, text := m.Header.Get("Status"), strings.ToLower(m.Header.Get("Description"))
	deleted := code == "409" && strings.Contains(text, "consumer deleted")
	if request != p.number && !deleted {
		return
	}
	p.last = p.now()
	switch {
	case code == "100": // a heartbeat
		p.faults = 0
		p.well()
		return
	case deleted:
		p.why = jetstream.ErrConsumerDeleted
	case code == "404", code == "408", strings.Contains(text, "batch completed"): // it is over
	case code == "503":
		p.why = nats.ErrNoResponders
	default:
		p.why = errors.New("nats: " + code + " " + m.Header.Get("Description"))
	}
	p.left = 0
	p.wake()
}

func (p *puller) wake() {
	select {
	case p.spent <- struct{}{}:
	default:
	}
}

// complain has serve look after something that went wrong.
func (p *puller) complain(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		p.why = why
	}
	p.wake()
}

// complaint returns how often something went wrong before, and what did now, once.
func (p *puller) complaint() (faults int, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	why, p.why = p.why, nil
	if why != nil {
		p.faults++
	}
	return max(p.faults-1, 0), why
}

// silent says that the server no longer shows that the request lives.
func (p *puller) silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left > 0 && p.now()-p.last > 2*p.heartbeat
}

// forget gives up the request.
func (p *puller) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = 0
}
