package natstransport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// flight is messages that are sent together and wait for their confirmations, which
// come to the sink's inbox: inbox.N.I for message I of flight N. One goroutine waits
// for all of them, with one timer.
type flight struct {
	number int
	// Under the sink's mu until landed is closed:
	errs   []error // of each message; errUnderWay until it is known
	left   int     // messages under way
	landed chan struct{}
}

var (
	errUnderWay     = errors.New("under way")
	errDisconnected = errors.New("the connection is being made again")
)

func (s *Sink) takeOff(messages int) *flight {
	f := &flight{errs: slices.Repeat([]error{errUnderWay}, messages), left: messages, landed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	f.number = s.number
	s.flights[f.number] = f
	return f
}

// settle notes what became of message i. It returns false if that was known.
func (s *Sink) settle(f *flight, i int, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(f.errs[i], errUnderWay) {
		return false
	}
	f.errs[i] = err
	if f.left--; f.left == 0 {
		close(f.landed)
	}
	return true
}

// heard is called for each confirmation, one after the other.
func (s *Sink) heard(m *nats.Msg) {
	number, index, _ := strings.Cut(m.Subject[len(s.inbox)+1:], ".")
	n, _ := strconv.Atoi(number) // no flight has the number 0
	i, err := strconv.Atoi(index)
	s.mu.Lock()
	f := s.flights[n]
	s.mu.Unlock()
	if f == nil || err != nil || i < 0 || i >= len(f.errs) {
		return
	}
	if s.settle(f, i, s.judge(m)) {
		<-s.window
	}
}

// fly sends the messages, and waits until it is known what became of them, or until
// that cannot be awaited.
func (s *Sink) fly(ctx context.Context, ms []*nats.Msg) []error {
	f := s.takeOff(len(ms))
	changes := s.conn.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer s.conn.RemoveStatusListener(changes)
	patience := time.NewTimer(s.config.Timeout)
	defer patience.Stop()
	// wait waits for room in the window, or until all is known, and returns why that
	// is in vain.
	wait := func(room chan<- struct{}, landed <-chan struct{}) error {
		patience.Reset(s.config.Timeout)
		select {
		case room <- struct{}{}:
			return nil
		case <-landed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return fmt.Errorf("the server confirmed nothing for %v", s.config.Timeout)
		case <-changes:
			return errDisconnected
		}
	}
	var vain error
	reply := append([]byte(s.inbox), '.')
	reply = append(strconv.AppendInt(reply, int64(f.number), 10), '.')
	for i, m := range ms {
		if vain == nil && ctx.Err() != nil {
			vain = context.Cause(ctx)
		}
		if vain == nil && !s.tryEnterWindow() {
			vain = wait(s.window, nil)
		}
		if vain != nil {
			s.settle(f, i, dedup.Transient(vain))
			continue
		}
		m.Reply = string(strconv.AppendInt(reply, int64(i), 10))
		err := s.send(m)
		if err != nil && s.settle(f, i, err) {
			<-s.window
		}
		if err != nil && !driver.IsPermanent(err) {
			vain = err // what follows it would be stored before it
		}
	}
	if vain == nil {
		vain = wait(nil, f.landed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, f.number)
	for i, err := range f.errs {
		if errors.Is(err, errUnderWay) {
			f.errs[i] = dedup.MaybeDone(fmt.Errorf("not confirmed: %w", vain))
			<-s.window
		}
	}
	return f.errs
}

func (s *Sink) tryEnterWindow() bool {
	select {
	case s.window <- struct{}{}:
		return true
	default:
		return false
	}
}

// send hands the message to the connection. An error means that it was not sent.
func (s *Sink) send(m *nats.Msg) error {
	if !s.conn.IsConnected() { // else it would wait in a buffer, and be sent who knows when
		return dedup.Transient(fmt.Errorf("the server does not answer: %w", errDisconnected))
	}
	err := s.conn.PublishMsg(m)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg):
		return dedup.Permanent(err)
	}
	return dedup.Transient(err)
}

// judge turns the server's answer into what is known of the message.
func (s *Sink) judge(m *nats.Msg) error {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return classify(jetstream.ErrNoStreamResponse)
	}
	if plainlyStored(m.Data) {
		return nil
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		jetstream.PubAck
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return classify(fmt.Errorf("%w: %w", jetstream.ErrInvalidJSAck, err))
	case answer.Error != nil:
		return classify(answer.Error)
	case answer.Stream == "":
		return classify(jetstream.ErrInvalidJSAck)
	case answer.Duplicate && s.config.DeadLetters:
		return fmt.Errorf("%w: stream %s has its Nats-Msg-Id at %d", ErrDuplicate, answer.Stream, answer.Sequence)
	}
	return nil
}

// plainlyStored says, without the cost of decoding it, that an answer is one of success
// and of nothing else: JSON escapes the quotes of a stream's name.
func plainlyStored(answer []byte) bool {
	return bytes.HasPrefix(answer, []byte(`{"stream":"`)) && bytes.HasSuffix(answer, []byte("}")) && bytes.Contains(answer, []byte(`"seq":`)) &&
		!bytes.Contains(answer, []byte(`"error"`)) && !bytes.Contains(answer, []byte(`"duplicate"`))
}
