package dedup

import (
	"context"
	"errors"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// DoRound is [Deduplicator.DoBatch] in two phases, for a transport that settles many
// messages in one transaction. It takes at most [driver.MaxBatch] messages of ms, and
// returns one Result for each that it took.
//
// First DoRound claims the keys. Then it calls h once, also if no message is to run, with a
// [Round] that tells how each message stands. h does its work, and answers for the messages
// by methods of the Round. After that, DoRound records the answers: it completes the keys,
// parks them or gives them back. A message without an answer is given back: its Outcome is
// [Unavailable], the attempt does not count, and the next claim is not ambiguous.
//
// h is not called if ctx has ended, the Deduplicator is shut down or a lease was lost before;
// the messages are then [Unavailable] or [Busy]. If h panics or ends its goroutine, its
// answers do not count, and the claimed messages come again flagged Ambiguous.
//
// DoRound never waits for a key, so two rounds cannot wait for each other. A message is Busy
// if its key is being processed elsewhere, or occurs earlier in the round with another
// payload.
func (t Transport) DoRound(ctx context.Context, ms []*Message, h RoundHandler) []Result {
	ms = ms[:min(len(ms), driver.MaxBatch)]
	results := make([]Result, len(ms))
	of := call{}
	t.d.doBatch(ctx, ms, results, &of, func(d *Deduplicator, ctx context.Context, slab []delivery, _ *call) {
		r := &Round{slab: slab, replies: make([]reply, len(slab))}
		of.many = func(ctx context.Context, _ []*Message) []Answer { return r.run(ctx, h) }
		d.processRound(ctx, slab, &of)
	})
	return results
}

// RoundHandler does the work of one round. ctx ends when the lease of any one of the
// messages is lost.
type RoundHandler func(ctx context.Context, r *Round)

// Round is the messages of one call of [Transport.DoRound], by their index in it. It
// belongs to the goroutine of the [RoundHandler], until that returns.
type Round struct {
	slab    []delivery
	replies []reply
	leaders map[*delivery]int
}

// reply is what the handler answered for a message.
type reply struct {
	kind   replyKind
	result []byte
	err    error
}

type replyKind uint8

const (
	givenBack replyKind = iota
	completed
	parked
	failing
)

// StandingKind says what a [RoundHandler] is to do with a message.
type StandingKind uint8

const (
	// StandingRun means that the key is claimed, or that the message has none and runs
	// all the same: do the work, and answer.
	StandingRun StandingKind = iota + 1
	// StandingPark means that the message is to be parked. Write its dead letter and call
	// [Round.Park]; without that, Options.DeadLetter is called after the round.
	StandingPark
	// StandingFollow means that the message has the key and the payload of an earlier one
	// of the round, Standing.Leader. It gets the Result of that one.
	StandingFollow
	// StandingSettled means that nothing is left to do, as Standing.Result says.
	StandingSettled
	// StandingWait means that the message cannot be settled in this round: Standing.Result
	// says why, if that is known.
	StandingWait
)

// Standing tells how a message stands once the keys are claimed.
type Standing struct {
	Kind   StandingKind
	Leader int    // StandingFollow: the index of that message
	Result Result // StandingSettled, StandingWait: as known so far; StandingPark: Err says why
}

// At returns the standing of message i.
func (r *Round) At(i int) Standing {
	switch x := &r.slab[i]; {
	case x.leader != nil:
		return Standing{Kind: StandingFollow, Leader: r.leader(x.leader)}
	case x.run:
		return Standing{Kind: StandingRun}
	case x.park != nil && !x.over:
		return Standing{Kind: StandingPark, Result: Result{Err: x.park, ID: x.id}}
	case x.res.settled:
		return Standing{Kind: StandingSettled, Result: *x.res}
	default:
		return Standing{Kind: StandingWait, Result: *x.res}
	}
}

func (r *Round) leader(x *delivery) int {
	if r.leaders == nil {
		r.leaders = make(map[*delivery]int, len(r.slab))
		for i := range r.slab {
			r.leaders[&r.slab[i]] = i
		}
	}
	return r.leaders[x]
}

// Complete answers that the work for message i is done. It is for StandingRun.
func (r *Round) Complete(i int, result []byte) { r.replies[i] = reply{kind: completed, result: result} }

// Park answers that the dead letter of message i is confirmed to be durable. It is for
// StandingPark and StandingRun, and needs no Options.DeadLetter.
func (r *Round) Park(i int, why error) { r.replies[i] = reply{kind: parked, err: given(why)} }

// Fail answers that the work for message i failed. err has the marks that a [Handler] can
// give. It is for StandingRun.
func (r *Round) Fail(i int, err error) { r.replies[i] = reply{kind: failing, err: given(err)} }

var errNoReason = errors.New("no reason is given")

func given(err error) error {
	if err == nil {
		return errNoReason
	}
	return err
}

// run calls h, and returns its answers for the messages that were to run.
func (r *Round) run(ctx context.Context, h RoundHandler) (answers []Answer) {
	h(ctx, r)
	for i := range r.slab {
		x, a := &r.slab[i], &r.replies[i]
		if a.kind == parked && (x.run || x.park != nil) {
			x.buried = true
		}
		if !x.run {
			if x.buried {
				x.park = a.err
			}
			continue
		}
		switch a.kind {
		case completed:
			answers = append(answers, Answer{Result: a.result})
		case parked, failing:
			answers = append(answers, Answer{Err: a.err})
		default:
			answers = append(answers, Answer{Err: errGivenBack})
		}
	}
	return answers
}
