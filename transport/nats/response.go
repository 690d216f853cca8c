package natstransport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/oncequeue/oncequeue/dedup"
)

// Headers of replies. The code and the description of an error are in Nats-Service-Error-Code
// and Nats-Service-Error, the headers of nats.go's package micro.
const (
	// HeaderRetryAfter says after how many seconds the request may be sent again, as in RFC
	// 9110, section 10.2.3.
	HeaderRetryAfter = "Retry-After"
	// HeaderReplayed is "true" in a reply that an earlier run recorded.
	HeaderReplayed = "Dedup-Replayed"
)

// ServiceError is an error that the requester gets to see. A handler returns it, or an error
// that wraps it. Code and Description become the headers Nats-Service-Error-Code and
// Nats-Service-Error of the reply.
//
// If it is marked by [dedup.Permanent], it is recorded like a result, and duplicates get it
// too. Otherwise it is not recorded, and the next request with the key runs the handler again.
type ServiceError struct {
	Code        string // such as "404"; default "500"
	Description string // one line; default "none given"
	Data        []byte // payload of the reply; may be nil
}

// Error returns Code and Description.
func (e *ServiceError) Error() string { return e.Code + " " + e.Description }

// response is what a request is answered: a payload, or an error with one.
type response struct {
	code        string // empty: no error
	description string
	data        []byte
	after       time.Duration // when to send the request again; 0: it would change nothing
	replayed    bool
}

func refusal(code, description string, after time.Duration) response {
	return response{code: code, description: description, after: after}
}

// serviceError returns what the requester may see of a handler's error.
func serviceError(err error) response {
	var e *ServiceError
	if !errors.As(err, &e) {
		return response{code: "500", description: "the handler failed"}
	}
	return response{code: orDefault(e.Code, "500"), description: orDefault(e.Description, "none given"), data: e.Data}
}

// header returns the headers of the reply; nil if it needs none.
func (r *response) header() nats.Header {
	h := nats.Header{}
	if r.code != "" {
		h.Set(micro.ErrorCodeHeader, line(r.code))
		h.Set(micro.ErrorHeader, line(r.description))
	}
	if r.after > 0 {
		h.Set(HeaderRetryAfter, strconv.Itoa(int(math.Ceil(r.after.Seconds()))))
	}
	if r.replayed {
		h.Set(HeaderReplayed, "true")
	}
	if len(h) == 0 {
		return nil
	}
	return h
}

// sendResponse sends out to a subject; in place of what is larger than the server
// takes, an error, so that nobody waits in vain.
func sendResponse(conn *nats.Conn, subject string, out *response) error {
	err := conn.PublishMsg(&nats.Msg{Subject: subject, Header: out.header(), Data: out.data})
	if errors.Is(err, nats.ErrMaxPayload) {
		large := refusal("500", "the reply is larger than the server takes", 0)
		err = errors.Join(err, conn.PublishMsg(&nats.Msg{Subject: subject, Header: large.header()}))
	}
	return err
}

// A recorded response starts with one of these. Then come, of an error, its code
// and description, each after its length, and then the payload.
const (
	recordedData  = 0x01
	recordedError = 0x02
)

var errNoResponse = errors.New("what is recorded is no reply: was the key taken by a consumer under the same scope?")

func (r *response) encode() []byte {
	if r.code == "" {
		return append([]byte{recordedData}, r.data...)
	}
	b := []byte{recordedError}
	for _, s := range []string{r.code, r.description} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, r.data...)
}

func decodeResponse(b []byte) (response, error) {
	if len(b) == 0 {
		return response{}, errNoResponse
	}
	kind, b := b[0], b[1:]
	switch kind {
	case recordedData:
		return response{data: b}, nil
	case recordedError:
		var texts [2]string
		for i := range texts {
			n, used := binary.Uvarint(b)
			if used <= 0 || n > uint64(len(b)-used) {
				return response{}, errNoResponse
			}
			texts[i], b = string(b[used:used+int(n)]), b[used+int(n):]
		}
		return response{code: texts[0], description: texts[1], data: b}, nil
	}
	return response{}, errNoResponse
}

// respond says what a request is answered whose Result is r.
func respond(r dedup.Result) response {
	switch r.Outcome {
	case dedup.Processed, dedup.Duplicate, dedup.Unkeyed:
		if !r.Settled() || r.Outcome == dedup.Unkeyed && r.Value == nil {
			return refusal("400", describe(r.Err), 0) // Unkeyed, and refused
		}
		if r.Omitted {
			return refusal("410", "the request was processed; its reply was longer than what is kept", 0)
		}
		out, err := decodeResponse(r.Value)
		if err != nil {
			return refusal("500", err.Error(), 0)
		}
		out.replayed = r.Outcome == dedup.Duplicate
		return out
	case dedup.Conflict:
		return refusal("422", describe(r.Err), 0)
	case dedup.Busy:
		if errors.Is(r.Err, dedup.ErrConflict) {
			return refusal("422", describe(r.Err), 0)
		}
		return inProgress(r.RetryAfter)
	case dedup.Failed:
		out := serviceError(r.Err)
		if !r.Halt {
			out.after = max(r.RetryAfter, 1)
		}
		return out
	case dedup.Uncertain:
		return refusal("503", "the request was processed, and its reply is not recorded", max(r.RetryAfter, 1))
	case dedup.Unavailable:
		return refusal("503", "the request was not processed", max(r.RetryAfter, 1))
	}
	return refusal("500", fmt.Sprintf("%v: an operator must look", r.Outcome), 0) // Parked, AlreadyParked, Stale, Ambiguous
}

func inProgress(after time.Duration) response {
	return refusal("409", "a request with the same key is in progress", max(after, 1))
}

// describe is for the requester, who need not know where the words come from.
func describe(err error) string {
	if err == nil {
		return "refused"
	}
	return strings.TrimPrefix(err.Error(), "dedup: ")
}
