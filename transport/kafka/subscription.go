package kafkatransport

import (
	"context"
	"encoding/binary"
	"net"
)

// groupConn is a connection of the consumer group. It makes up for two faults of
// kafka-go in the subscriptions that the members of a group send each other:
//
//   - kafka-go says that its subscription has version 1, and leaves out what that
//     version adds. A Java member that leads the group dies of it. It is version 0.
//   - kafka-go refuses a subscription that has more than those of version 0, such as a
//     Java or franz-go member sends. It is given the beginning that it knows.
//
// Nothing else of the requests and answers is touched. kafka-go uses a connection from
// one goroutine at a time for writing, and from one for reading.
type groupConn struct {
	net.Conn
	out    []byte            // a request that is not complete yet
	in     []byte            // an answer that is not complete yet
	answer []byte            // a complete one, as far as it is not read yet
	joins  chan joinUnderWay // at most one: kafka-go joins from one goroutine
	chunk  [readChunk]byte
}

type joinUnderWay struct {
	correlation int32
	version     int16
}

const (
	apiJoinGroup = 11
	frameHead    = 4 // the size of a request or an answer
	readChunk    = 4096
)

// dialGroup opens a connection for kafka-go's consumer group.
func (l *link) dialGroup(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newGroupConn(c), nil
}

func newGroupConn(c net.Conn) *groupConn {
	return &groupConn{Conn: c, joins: make(chan joinUnderWay, 1)}
}

// frame returns the first request or answer in b, with its size, if b has it whole.
func frame(b []byte) (whole []byte) {
	if len(b) < frameHead {
		return nil
	}
	n := frameHead + int(binary.BigEndian.Uint32(b))
	if n < frameHead || len(b) < n {
		return nil
	}
	return b[:n]
}

// Write sends requests when they are whole: kafka-go's buffer may cut them.
func (c *groupConn) Write(b []byte) (int, error) {
	c.out = append(c.out, b...)
	for request := frame(c.out); request != nil; request = frame(c.out) {
		c.joining(request[frameHead:])
		if _, err := c.Conn.Write(request); err != nil {
			return 0, err
		}
		c.out = c.out[len(request):]
	}
	return len(b), nil
}

// joining gives the subscriptions in a request to join their true version.
func (c *groupConn) joining(request []byte) {
	r := reader{rest: request}
	key, version, correlation := r.uint(2), int16(r.uint(2)), int32(r.uint(4))
	if key != apiJoinGroup || version < 1 || version > 2 {
		return // kafka-go joins with no other version
	}
	select {
	case <-c.joins: // its answer did not come in time
	default:
	}
	c.joins <- joinUnderWay{correlation, version}
	r.str() // client id
	r.str() // group
	r.skip(4 + 4)
	r.str() // member
	r.str() // protocol type
	for range r.count() {
		r.str() // name
		if s := r.take(r.count()); len(s) >= 2 && binary.BigEndian.Uint16(s) == 1 {
			binary.BigEndian.PutUint16(s, 0)
		}
	}
}

// Read returns the bytes of answers that are whole.
func (c *groupConn) Read(b []byte) (int, error) {
	for len(c.answer) == 0 {
		if whole := frame(c.in); whole != nil {
			c.in = c.in[len(whole):]
			c.answer = c.joined(whole)
			break
		}
		n, err := c.Conn.Read(c.chunk[:])
		c.in = append(c.in, c.chunk[:n]...)
		if err != nil && frame(c.in) == nil {
			return 0, err // what came so far stays: it may have been a deadline
		}
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

// joined cuts the subscriptions in the answer to a join to the part that kafka-go knows.
func (c *groupConn) joined(answer []byte) []byte {
	r := reader{rest: answer[frameHead:]}
	correlation := int32(r.uint(4))
	var join joinUnderWay
	select {
	case join = <-c.joins:
	default:
		return answer
	}
	if join.correlation != correlation {
		select {
		case c.joins <- join: // that answer is still to come
		default:
		}
		return answer
	}
	if join.version >= 2 {
		r.skip(4) // throttle time
	}
	r.skip(2 + 4) // error, generation
	r.str()       // protocol
	r.str()       // leader
	r.str()       // this member
	from := len(answer) - len(r.rest)
	members := r.count()
	if members <= 0 {
		return answer
	}
	be := binary.BigEndian
	b := append([]byte(nil), answer[:from]...)
	b = be.AppendUint32(b, uint32(members))
	for range members {
		id := r.str()
		b = append(be.AppendUint16(b, uint16(len(id))), id...)
		s := known(r.take(r.count()))
		b = append(be.AppendUint32(b, uint32(len(s))), s...)
	}
	if len(r.rest) > 0 {
		return answer // it is damaged: kafka-go tells
	}
	be.PutUint32(b, uint32(len(b)-frameHead))
	return b
}

// known returns the beginning of a subscription that all versions have: version, topics,
// user data.
func known(subscription []byte) []byte {
	r := reader{rest: subscription}
	r.skip(2)
	for range r.count() {
		r.str()
	}
	r.skip(r.count())
	return subscription[:len(subscription)-len(r.rest)]
}
